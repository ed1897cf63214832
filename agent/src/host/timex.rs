//! The kernel's clock discipline, as `adjtimex` tells it.
//!
//! The reading comes through [`ClockStatus`], so that a test can give one.

use std::{io, sync::Arc};

use sextant_model::MetricType::{self, Counter, Gauge};

use super::collector::{CollectError, Collector, Gather, HostPaths};

/// The fields of `struct timex` that `adjtimex` fills in, in its units, and its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimexReading {
    /// What `adjtimex` returned: 5 (`TIME_ERROR`) where the clock is not synchronised.
    pub state: i32,
    /// `STA_*` bits.
    pub status: i32,
    /// Offset, in nanoseconds with `STA_NANO`, else microseconds.
    pub offset: i64,
    /// Frequency offset, parts per million with 16 bits of fraction.
    pub freq: i64,
    /// Largest error, microseconds.
    pub maxerror: i64,
    /// Estimated error, microseconds.
    pub esterror: i64,
    /// Time constant of the phase-locked loop.
    pub constant: i64,
    /// Microseconds between ticks.
    pub tick: i64,
    /// Frequency by pulses per second, scaled as `freq`.
    pub ppsfreq: i64,
    /// Jitter of pulses, unit as `offset`.
    pub jitter: i64,
    /// Pulse interval, seconds.
    pub shift: i32,
    /// Stability of pulses, scaled as `freq`.
    pub stabil: i64,
    /// Pulses with more jitter than allowed.
    pub jitcnt: i64,
    /// Calibration intervals.
    pub calcnt: i64,
    /// Calibration errors.
    pub errcnt: i64,
    /// Pulses beyond the stability limit.
    pub stbcnt: i64,
    /// Offset of International Atomic Time, seconds.
    pub tai: i32,
}

/// Reads the clock's status.
pub trait ClockStatus: Send + Sync {
    /// Calls `adjtimex` with no mode bit set.
    fn read(&self) -> io::Result<TimexReading>;
}

/// The collector `timex`.
pub struct Timex {
    status: Arc<dyn ClockStatus>,
}

impl Timex {
    /// A collector of what `status` reads.
    pub fn new(status: Arc<dyn ClockStatus>) -> Self {
        Self { status }
    }
}

const TIME_ERROR: i32 = 5;
const STA_NANO: i32 = 0x2000;
/// Parts per million with 16 bits of fraction.
const PPM16: f64 = 1e6 * 65536.0;

impl Collector for Timex {
    fn name(&self) -> &'static str {
        "timex"
    }

    fn collect(&mut self, _: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let t = self.status.read().map_err(|source| match source.kind() {
            // A sandbox that forbids the call; nothing is wrong with the host.
            io::ErrorKind::PermissionDenied => CollectError::Forbidden("adjtimex"),
            _ => CollectError::System { call: "adjtimex", source },
        })?;
        let unit = if t.status & STA_NANO != 0 { 1e9 } else { 1e6 };
        let seconds = |v: i64| v as f64 / unit;
        let micros = |v: i64| v as f64 / 1e6;
        let rows: [(&'static str, &'static str, MetricType, f64); 17] = [
            (
                "offset_seconds",
                "Time offset in between local system and reference clock.",
                Gauge,
                seconds(t.offset),
            ),
            (
                "frequency_adjustment_ratio",
                "Local clock frequency adjustment.",
                Gauge,
                1.0 + t.freq as f64 / PPM16,
            ),
            ("maxerror_seconds", "Maximum error in seconds.", Gauge, micros(t.maxerror)),
            ("estimated_error_seconds", "Estimated error in seconds.", Gauge, micros(t.esterror)),
            ("status", "Value of the status array bits.", Gauge, f64::from(t.status)),
            ("loop_time_constant", "Phase-locked loop time constant.", Gauge, t.constant as f64),
            ("tick_seconds", "Seconds between clock ticks.", Gauge, micros(t.tick)),
            ("pps_frequency_hertz", "Pulse per second frequency.", Gauge, t.ppsfreq as f64 / PPM16),
            ("pps_jitter_seconds", "Pulse per second jitter.", Gauge, seconds(t.jitter)),
            ("pps_shift_seconds", "Pulse per second interval duration.", Gauge, f64::from(t.shift)),
            (
                "pps_stability_hertz",
                "Pulse per second stability, average of recent frequency changes.",
                Gauge,
                t.stabil as f64 / PPM16,
            ),
            (
                "pps_jitter_total",
                "Pulse per second count of jitter limit exceeded events.",
                Counter,
                t.jitcnt as f64,
            ),
            (
                "pps_calibration_total",
                "Pulse per second count of calibration intervals.",
                Counter,
                t.calcnt as f64,
            ),
            ("pps_error_total", "Pulse per second count of calibration errors.", Counter, t.errcnt as f64),
            (
                "pps_stability_exceeded_total",
                "Pulse per second count of stability limit exceeded events.",
                Counter,
                t.stbcnt as f64,
            ),
            ("tai_offset_seconds", "International Atomic Time (TAI) offset.", Gauge, f64::from(t.tai)),
            (
                "sync_status",
                "Is clock synchronized to a reliable server (1 = yes, 0 = no).",
                Gauge,
                f64::from(u8::from(t.state != TIME_ERROR)),
            ),
        ];
        for (name, help, metric_type, value) in rows {
            out.add(metric_type, format!("node_timex_{name}"), help, &[], value);
        }
        Ok(())
    }
}
