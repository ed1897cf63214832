//! A token bucket per tenant.

use std::time::Instant;

use sextant_proto::TenantLimits;

use crate::RequestError;

/// A bucket that fills with the tenant's rate.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    tokens: f64,
    at: Option<Instant>,
}

impl TokenBucket {
    /// A bucket that is full at its first use.
    pub(crate) fn new() -> Self {
        Self { tokens: 0.0, at: None }
    }

    /// Takes tokens, or says when there will be enough. A request larger than the burst is taken when the bucket is full.
    pub(crate) fn take(&mut self, samples: u64, limits: &TenantLimits, now: Instant) -> Result<(), RequestError> {
        let rate = limits.ingestion_rate;
        if rate <= 0.0 {
            return Ok(());
        }
        let burst = if limits.ingestion_burst == 0 { rate } else { limits.ingestion_burst as f64 };
        let filled = match self.at {
            None => burst,
            Some(at) => (self.tokens + now.saturating_duration_since(at).as_secs_f64() * rate).min(burst),
        };
        self.at = Some(now);
        self.tokens = filled;
        let wanted = samples as f64;
        if wanted > burst || wanted > filled {
            let missing = (wanted.min(burst) - filled).max(0.0);
            let retry_after_s = (missing / rate).ceil().clamp(1.0, 3600.0) as u32;
            return Err(RequestError::Rate { rate, burst: burst as u64, samples, retry_after_s });
        }
        self.tokens -= wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_with_its_rate() {
        let limits = TenantLimits { ingestion_rate: 10.0, ingestion_burst: 20, ..TenantLimits::default() };
        let mut bucket = TokenBucket::new();
        let t = Instant::now();
        assert!(bucket.take(20, &limits, t).is_ok());
        let e = bucket.take(10, &limits, t).unwrap_err();
        assert!(matches!(e, RequestError::Rate { retry_after_s: 1, .. }), "{e}");
        assert!(bucket.take(10, &limits, t + Duration::from_secs(1)).is_ok());
        assert!(bucket.take(21, &limits, t + Duration::from_secs(100)).is_err());
        assert!(bucket.take(1 << 40, &TenantLimits::default(), t).is_ok());
    }
}
