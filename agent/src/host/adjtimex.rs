//! The one system call of this crate that has no safe wrapper: `adjtimex(2)`, asked for the clock's status.
//!
//! `rustix` and `nix` do not wrap it, so this module is the crate's exception to `unsafe_code = "deny"`.

#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit};

use super::timex::{ClockStatus, TimexReading};

/// The kernel of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelClock;

impl ClockStatus for KernelClock {
    fn read(&self) -> io::Result<TimexReading> {
        let mut status = MaybeUninit::<libc::timex>::zeroed();
        // SAFETY: the pointer is to a whole `timex` of our own for as long as the call lasts. The structure has integers
        // only, for which all bits zero is a value, so it is initialised before and after the call. `modes` is 0: the
        // kernel fills the other fields in and changes nothing.
        let (state, t) = unsafe {
            let state = libc::adjtimex(status.as_mut_ptr());
            (state, status.assume_init())
        };
        if state == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(TimexReading {
            state,
            status: t.status,
            offset: t.offset,
            freq: t.freq,
            maxerror: t.maxerror,
            esterror: t.esterror,
            constant: t.constant,
            tick: t.tick,
            ppsfreq: t.ppsfreq,
            jitter: t.jitter,
            shift: t.shift,
            stabil: t.stabil,
            jitcnt: t.jitcnt,
            calcnt: t.calcnt,
            errcnt: t.errcnt,
            stbcnt: t.stbcnt,
            tai: t.tai,
        })
    }
}
