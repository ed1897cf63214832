//! Named fault points, for tests that end or fail the process at an exact step.
//!
//! `SEXTANT_FAULT="flush.after_upload=abort;log.sync=error@3;store.put=sleep:200"`: at the named point abort the process,
//! return an error or sleep, optionally only at the n-th time the point is reached (`@n`, from 1). Without the variable
//! a point costs one load of an atomic.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
    time::Duration,
};

/// An error asked for by a test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("injected fault at {0}")]
pub struct InjectedFault(pub String);

#[derive(Clone, Copy)]
enum Action {
    Abort,
    Error,
    Sleep(Duration),
}

struct Point {
    action: Action,
    only_at: Option<u64>,
    reached: u64,
}

static POINTS: OnceLock<Option<Mutex<HashMap<String, Point>>>> = OnceLock::new();

fn parse(text: &str) -> HashMap<String, Point> {
    let mut points = HashMap::new();
    for item in text.split(';').filter(|s| !s.is_empty()) {
        let Some((name, spec)) = item.split_once('=') else { continue };
        let (action, only_at) = match spec.split_once('@') {
            Some((a, n)) => (a, n.parse().ok()),
            None => (spec, None),
        };
        let action = match action.split_once(':') {
            Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().unwrap_or(100))),
            _ if action == "error" => Action::Error,
            _ => Action::Abort,
        };
        points.insert(name.trim().to_owned(), Point { action, only_at, reached: 0 });
    }
    points
}

/// Passes a fault point. Sleeps block the calling thread.
pub fn hit(name: &str) -> Result<(), InjectedFault> {
    let points = POINTS.get_or_init(|| std::env::var("SEXTANT_FAULT").ok().map(|t| Mutex::new(parse(&t))));
    let Some(points) = points else { return Ok(()) };
    let action = {
        let mut points = points.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(p) = points.get_mut(name) else { return Ok(()) };
        p.reached += 1;
        if p.only_at.is_some_and(|n| n != p.reached) {
            return Ok(());
        }
        p.action
    };
    match action {
        Action::Abort => {
            eprintln!("fault point {name}: abort");
            std::process::abort()
        }
        Action::Error => Err(InjectedFault(name.to_owned())),
        Action::Sleep(d) => {
            std::thread::sleep(d);
            Ok(())
        }
    }
}
