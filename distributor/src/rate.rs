//! A tenant's token bucket: how many samples a second one distributor takes of it.

use sextant_proto::TenantLimits;

use crate::RequestError;

/// A bucket that fills with the tenant's rate and is full at its first use.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    /// Below 0 after a request larger than the burst.
    tokens: f64,
    at_ms: Option<i64>,
}

impl TokenBucket {
    /// Takes tokens, or says after how long there will be enough. A request larger than the burst could never be
    /// taken as a whole: it is taken when the bucket is full, and what it took too much is filled up first.
    pub(crate) fn take(
        &mut self,
        samples: u64,
        limits: &TenantLimits,
        now_ms: i64,
    ) -> Result<(), RequestError> {
        let rate = limits.ingestion_rate;
        if rate <= 0.0 {
            return Ok(());
        }
        let burst = if limits.ingestion_burst == 0 { rate } else { limits.ingestion_burst as f64 };
        self.tokens = match self.at_ms {
            None => burst,
            Some(at) => (self.tokens + now_ms.saturating_sub(at).max(0) as f64 * rate / 1000.0).min(burst),
        };
        self.at_ms = Some(now_ms);
        let missing = (samples as f64).min(burst) - self.tokens;
        if missing > 0.0 {
            let retry_after_s = (missing / rate).ceil().clamp(1.0, 3600.0) as u32;
            return Err(RequestError::Rate { rate, burst: burst as u64, samples, retry_after_s });
        }
        self.tokens -= samples as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_its_rate() {
        let limits = TenantLimits { ingestion_rate: 10.0, ingestion_burst: 20, ..TenantLimits::default() };
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(20, &limits, 0).is_ok());
        let e = bucket.take(15, &limits, 0).unwrap_err();
        assert!(matches!(e, RequestError::Rate { retry_after_s: 2, .. }), "{e}");
        assert!(e.to_string().contains("limit ingestion_rate (10 samples/s, burst 20)"), "{e}");
        assert!(bucket.take(15, &limits, 1500).is_ok());
        // Larger than the burst: only when full, and then it is paid for.
        assert!(bucket.take(60, &limits, 3000).is_err());
        assert!(bucket.take(60, &limits, 10_000).is_ok());
        assert!(bucket.take(1, &limits, 13_900).is_err());
        assert!(bucket.take(1, &limits, 14_200).is_ok());
        assert!(bucket.take(1 << 40, &TenantLimits::default(), 0).is_ok());
    }
}
