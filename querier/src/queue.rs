//! Who runs next: a place for each query that runs, a queue per tenant for those that wait.
//!
//! Constraints
//! - At most `places` queries run. One tenant has at most three quarters of them (where there is more than one), so that
//!   another's query finds one free.
//! - A free place goes to the waiting tenant that has had the least: time that its queries ran, divided by its weight. A tenant
//!   that comes back starts where the others are: nobody saves up for later.
//! - A tenant's queue is bounded; beyond it queries are refused, with the limit's name.
//! - A place is given back when its [`Place`] is dropped, whoever holds it, also in a message that nobody received.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::QueryError;

/// The queues; clones share them.
#[derive(Clone)]
pub struct FairQueue(Arc<Mutex<State>>);

struct State {
    places: usize,
    running: usize,
    tenants: HashMap<Arc<str>, Tenant>,
    /// Where tenants that come back start: what the one served last had had.
    floor: f64,
}

#[derive(Default)]
struct Tenant {
    waiting: VecDeque<oneshot::Sender<Place>>,
    running: usize,
    /// Seconds of running queries, divided by the weight.
    had: f64,
    weight: f64,
    /// At most so many run, as the tenant's own limit says.
    running_max: usize,
}

/// What a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Twice the weight is twice the time. At least 0.001 is taken.
    pub weight: f64,
    /// So many queries may run at a time; 0 for as many as there are places for.
    pub running_max: usize,
    /// So many may wait; 0 for any number.
    pub waiting_max: usize,
}

/// A place among the running queries.
pub struct Place {
    queue: FairQueue,
    tenant: Arc<str>,
    since: Instant,
}

impl FairQueue {
    /// Queues in front of so many places.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        Self(Arc::new(Mutex::new(State { places, running: 0, tenants: HashMap::new(), floor: 0.0 })))
    }

    /// Waits for a place. Dropping the future gives up the wait.
    pub async fn wait(&self, tenant: &str, share: Share) -> Result<Place, QueryError> {
        let turn = {
            let mut state = self.0.lock();
            let floor = state.floor;
            let name: Arc<str> = match state.tenants.get_key_value(tenant) {
                Some((name, _)) => name.clone(),
                None => tenant.into(),
            };
            let entry = state.tenants.entry(name).or_default();
            (entry.weight, entry.running_max) = (share.weight.max(0.001), share.running_max);
            if entry.running == 0 && entry.waiting.is_empty() {
                entry.had = entry.had.max(floor);
            }
            if share.waiting_max > 0 && entry.waiting.len() >= share.waiting_max {
                entry.waiting.retain(|w| !w.is_closed());
                if entry.waiting.len() >= share.waiting_max {
                    return Err(QueryError::Overloaded(format!(
                        "too many outstanding requests: limit max_queued_queries ({}) of waiting queries is reached; try again later, or raise the limits key max_queued_queries",
                        share.waiting_max
                    )));
                }
            }
            let (give, turn) = oneshot::channel();
            entry.waiting.push_back(give);
            turn
        };
        self.serve();
        turn.await.map_err(|_| QueryError::Cancelled)
    }

    /// Gives free places to those whose turn it is.
    fn serve(&self) {
        while let Some((give, place)) = self.next() {
            // Nobody waits any more: the place comes back and is free for the next.
            drop(give.send(place));
        }
    }

    fn next(&self) -> Option<(oneshot::Sender<Place>, Place)> {
        let mut state = self.0.lock();
        if state.running >= state.places {
            return None;
        }
        let most = if state.places == 1 { 1 } else { (state.places * 3 / 4).max(1) };
        let may_run = |t: &mut Tenant| {
            // So that sending seldom fails: each failure serves the next from within.
            while t.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                t.waiting.pop_front();
            }
            let max = if t.running_max == 0 { most } else { t.running_max.min(most) };
            !t.waiting.is_empty() && t.running < max
        };
        let ready = state.tenants.iter_mut().filter_map(|(n, t)| may_run(t).then_some((n, t)));
        let (name, tenant) = ready.min_by(|a, b| a.1.had.total_cmp(&b.1.had).then_with(|| a.0.cmp(b.0)))?;
        let give = tenant.waiting.pop_front()?;
        tenant.running += 1;
        let (name, had) = (name.clone(), tenant.had);
        state.floor = state.floor.max(had);
        state.running += 1;
        Some((give, Place { queue: self.clone(), tenant: name, since: Instant::now() }))
    }

    /// Queries that run and that wait.
    #[cfg(test)]
    fn lengths(&self) -> (usize, usize) {
        let state = self.0.lock();
        let waiting = state.tenants.values().map(|t| t.waiting.iter().filter(|w| !w.is_closed()).count());
        (state.running, waiting.sum())
    }

    fn leave(&self, tenant: &str, seconds: f64) {
        let mut state = self.0.lock();
        state.running -= 1;
        let floor = state.floor;
        if let Some(t) = state.tenants.get_mut(tenant) {
            t.running -= 1;
            t.had += seconds / t.weight;
            // What is no more than where it would start again need not be remembered.
            if t.running == 0 && t.waiting.is_empty() && t.had <= floor {
                state.tenants.remove(tenant);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(&self.tenant, self.since.elapsed().as_secs_f64());
        self.queue.serve();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ANY: Share = Share { weight: 1.0, running_max: 0, waiting_max: 0 };

    #[tokio::test]
    async fn one_tenant_never_has_all_places() {
        let queue = FairQueue::new(4);
        let mut heavy: Vec<_> = (0..1000).map(|_| Box::pin(queue.wait("heavy", ANY))).collect();
        let got: Vec<Place> = heavy.iter_mut().filter_map(|f| f.now_or_never()).map(Result::unwrap).collect();
        assert_eq!((got.len(), queue.lengths()), (3, (3, 997)));
        let light = queue.wait("light", ANY).now_or_never().unwrap().unwrap();
        assert_eq!(queue.lengths().0, 4);
        drop(light);
        assert_eq!(queue.lengths().0, 3);
    }

    #[tokio::test]
    async fn a_free_place_goes_to_who_had_least() {
        let queue = FairQueue::new(1);
        let first = queue.wait("a", ANY).await.unwrap();
        let mut a = Box::pin(queue.wait("a", ANY));
        assert!((&mut a).now_or_never().is_none());
        let mut b = Box::pin(queue.wait("b", ANY));
        assert!((&mut b).now_or_never().is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
        drop(first);
        assert!((&mut a).now_or_never().is_none());
        drop((&mut b).now_or_never().unwrap().unwrap());
        assert!((&mut a).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_no_place() {
        let queue = FairQueue::new(1);
        let first = queue.wait("a", ANY).await.unwrap();
        let mut gone = Box::pin(queue.wait("a", ANY));
        assert!((&mut gone).now_or_never().is_none());
        let mut never_polled_again = Box::pin(queue.wait("a", ANY));
        assert!((&mut never_polled_again).now_or_never().is_none());
        drop(gone);
        drop(first);
        // The place is in a message that nobody takes.
        assert_eq!(queue.lengths().0, 1);
        drop(never_polled_again);
        assert_eq!(queue.lengths(), (0, 0));
        assert!(queue.0.lock().tenants.len() <= 1);
        drop(queue.wait("b", ANY).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_names_the_limit() {
        let queue = FairQueue::new(1);
        let two = Share { waiting_max: 2, ..ANY };
        let first = queue.wait("a", two).await.unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(queue.wait("a", two))).collect();
        assert!(waiting.iter_mut().all(|w| w.now_or_never().is_none()));
        let refused = queue.wait("a", two).await.err().unwrap().to_string();
        assert!(refused.contains("max_queued_queries") && refused.contains('2'), "{refused}");
        waiting.pop();
        assert!(Box::pin(queue.wait("a", two)).now_or_never().is_none());
        drop(first);
    }

    #[tokio::test]
    async fn weights_share_the_time() {
        let queue = FairQueue::new(1);
        let mut turns = HashMap::new();
        let hold = queue.wait("hold", ANY).await.unwrap();
        let mut waiting: Vec<(&str, _)> = Vec::new();
        for _ in 0..60 {
            for (tenant, weight) in [("one", 1.0), ("two", 2.0)] {
                waiting.push((tenant, Box::pin(queue.wait(tenant, Share { weight, ..ANY }))));
            }
        }
        waiting.iter_mut().for_each(|(_, w)| assert!(w.now_or_never().is_none()));
        drop(hold);
        for _ in 0..60 {
            let at = (0..waiting.len())
                .find_map(|i| (&mut waiting[i].1).now_or_never().map(|place| (i, place.unwrap())));
            let (i, place) = at.unwrap();
            *turns.entry(waiting.remove(i).0).or_insert(0) += 1;
            // As if each had run for a second: the clock's own share is nothing beside it.
            queue.0.lock().tenants.get_mut(&place.tenant).unwrap().had +=
                if &*place.tenant == "one" { 1.0 } else { 0.5 };
            drop(place);
        }
        assert!((38..=42).contains(&turns["two"]), "{turns:?}");
    }
}
