//! Passwords: hashed with Argon2id (RFC 9106), on threads that may block, and answered from memory for a while.
//!
//! A hash takes tens of milliseconds and some 20 MiB on purpose, and basic authentication sends the password with each
//! request. What was found is kept by a keyed hash of user and password, whose key is drawn anew at each load: memory holds no
//! password. Refusals are kept apart, so that guessing does not push out those who are known.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use parking_lot::Mutex;
use ring::hmac;
use tokio::{sync::Semaphore, time::Instant};

use crate::{error::AuthError, metrics::SecurityMetrics};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(300);
/// Answers of each kind that are kept: more people than that seldom look at one process within [`KEPT`].
const KEPT_MAX: usize = 4096;
/// Requests that may wait for a hash; with more, the last would wait longer than clients do.
const WAITING_MAX: usize = 256;
/// A hash that costs more would let one guess hold a core for seconds.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 16;

/// A password as the file of credentials has it: `$argon2id$…`, salted, with the library's recommended cost.
pub fn hash_password(password: &str) -> Result<String, AuthError> {
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| AuthError::Busy)?;
    Ok(hash.to_string())
}

/// A password's hash. No `Debug`: it is a secret too.
#[derive(Clone)]
pub(super) struct Hashed(Arc<PasswordHash>);

impl Hashed {
    /// Reads the PHC form. The reason never has the hash in it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let form = "it is not an Argon2id hash in PHC form (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`)";
        let hash = PasswordHash::new(text).map_err(|_| form)?;
        let is_ours = hash.algorithm.as_str() == "argon2id" && hash.version.is_none_or(|v| v == 19);
        if !is_ours || hash.salt.is_none() || hash.hash.is_none() {
            return Err(form);
        }
        let params = Params::try_from(&hash).map_err(|_| form)?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err("its cost is above m=262144 (256 MiB), t=16");
        }
        Ok(Self(Arc::new(hash)))
    }

    /// Compares in constant time. Slow.
    fn is_of(&self, password: &str) -> bool {
        Argon2::default().verify_password(password.as_bytes(), &*self.0).is_ok()
    }
}

type Key = [u8; 32];

/// The latest answers; the oldest leaves first.
struct Answers<V> {
    by_key: HashMap<Key, (Instant, V)>,
    order: VecDeque<Key>,
}

impl<V: Clone> Answers<V> {
    fn new() -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&self, key: &Key) -> Option<V> {
        let (at, value) = self.by_key.get(key)?;
        (at.elapsed() < KEPT).then(|| value.clone())
    }

    fn insert(&mut self, key: Key, value: V) {
        if self.by_key.insert(key, (Instant::now(), value)).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

/// Checks passwords of one load of the file.
pub(super) struct Passwords<V> {
    by_user: HashMap<String, (Hashed, V)>,
    /// Hashed against where the user is unknown: an answer takes as long whether there is such a user or not.
    stand_in: Option<Hashed>,
    key: hmac::Key,
    known: Mutex<Answers<V>>,
    refused: Mutex<Answers<()>>,
}

/// Bounds the hashes of a process, over all loads.
pub(super) struct HashingLimits {
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for HashingLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Half of the cores: guesses must not take all from queries.
        let running = Arc::new(Semaphore::new(cores.div_ceil(2).min(8)));
        Self { waiting: Arc::new(Semaphore::new(WAITING_MAX)), running }
    }
}

impl<V: Clone + Send + 'static> Passwords<V> {
    pub(super) fn new(by_user: HashMap<String, (Hashed, V)>, key: hmac::Key) -> Self {
        let stand_in = by_user.values().map(|(hash, _)| hash.clone()).next();
        Self {
            by_user,
            stand_in,
            key,
            known: Mutex::new(Answers::new()),
            refused: Mutex::new(Answers::new()),
        }
    }

    fn key_of(&self, user: &str, password: &str) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        // The length first, so that no other pair gives the same bytes.
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn answered(&self, key: &Key) -> Option<Result<V, AuthError>> {
        if let Some(value) = self.known.lock().get(key) {
            return Some(Ok(value));
        }
        self.refused.lock().get(key).map(|()| Err(AuthError::Unauthenticated))
    }

    /// What belongs to the user, where the password is theirs.
    pub(super) async fn check(
        self: Arc<Self>,
        user: &str,
        password: &str,
        limits: &HashingLimits,
        metrics: &SecurityMetrics,
    ) -> Result<V, AuthError>
    where
        Self: Send + Sync,
    {
        let own = self.by_user.get(user).cloned();
        let Some(hash) = own.as_ref().map(|(hash, _)| hash).or(self.stand_in.as_ref()).cloned() else {
            return Err(AuthError::Unauthenticated);
        };
        let key = self.key_of(user, password);
        if let Some(answer) = self.answered(&key) {
            return answer;
        }
        let waiting = limits.waiting.clone().try_acquire_owned().map_err(|_| AuthError::Busy)?;
        let running = limits.running.clone().acquire_owned().await.map_err(|_| AuthError::Busy)?;
        // Many requests of one client may have waited for the same answer.
        if let Some(answer) = self.answered(&key) {
            return answer;
        }
        metrics.password_hashes.fetch_add(1, Relaxed);
        let (passwords, password) = (self.clone(), password.to_owned());
        // The places are held by the work itself: it goes on where the client leaves.
        let work = tokio::task::spawn_blocking(move || {
            let _places = (waiting, running);
            let value = own.map(|(_, value)| value);
            match (hash.is_of(&password), value) {
                (true, Some(value)) => {
                    passwords.known.lock().insert(key, value.clone());
                    Ok(value)
                }
                _ => {
                    passwords.refused.lock().insert(key, ());
                    Err(AuthError::Unauthenticated)
                }
            }
        });
        work.await.unwrap_or(Err(AuthError::Busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap hashes, so that tests are quick.
    fn hashed(password: &str) -> Hashed {
        let cheap = Argon2::from(Params::new(8, 1, 1, None).unwrap());
        Hashed::parse(&cheap.hash_password(password.as_bytes()).unwrap().to_string()).unwrap()
    }

    fn passwords(of: &[(&str, &str)]) -> Arc<Passwords<usize>> {
        let by_user = of.iter().enumerate().map(|(i, (u, p))| ((*u).to_owned(), (hashed(p), i))).collect();
        Arc::new(Passwords::new(by_user, hmac::Key::new(hmac::HMAC_SHA256, b"key")))
    }

    #[tokio::test]
    async fn a_password_is_hashed_once_whether_right_or_wrong() {
        let (passwords, limits, metrics) =
            (passwords(&[("a", "x"), ("b", "y")]), HashingLimits::default(), SecurityMetrics::default());
        for _ in 0..3 {
            assert_eq!(passwords.clone().check("a", "x", &limits, &metrics).await, Ok(0));
            assert_eq!(passwords.clone().check("b", "y", &limits, &metrics).await, Ok(1));
            for (user, password) in [("a", "y"), ("ax", ""), ("", "ax"), ("c", "x"), ("a", "")] {
                let answer = passwords.clone().check(user, password, &limits, &metrics).await;
                assert_eq!(answer, Err(AuthError::Unauthenticated), "{user} {password}");
            }
        }
        assert_eq!(metrics.password_hashes.load(Relaxed), 7);
    }

    #[tokio::test]
    async fn guesses_are_bounded_and_do_not_push_out_who_is_known() {
        let (passwords, metrics) = (passwords(&[("a", "x")]), SecurityMetrics::default());
        let limits = HashingLimits { waiting: Arc::new(Semaphore::new(1)), ..HashingLimits::default() };
        passwords.clone().check("a", "x", &limits, &metrics).await.unwrap();
        let held = limits.waiting.clone().try_acquire_owned().unwrap();
        assert_eq!(passwords.clone().check("a", "guess", &limits, &metrics).await, Err(AuthError::Busy));
        assert_eq!(passwords.clone().check("a", "x", &limits, &metrics).await, Ok(0));
        drop(held);
        for guess in 0..KEPT_MAX + 10 {
            passwords.refused.lock().insert(passwords.key_of("a", &guess.to_string()), ());
        }
        assert_eq!(passwords.refused.lock().by_key.len(), KEPT_MAX);
        assert_eq!(passwords.refused.lock().order.len(), KEPT_MAX);
        assert_eq!(passwords.clone().check("a", "x", &limits, &metrics).await, Ok(0));
        assert_eq!(metrics.password_hashes.load(Relaxed), 1);
    }

    #[test]
    fn hashes_of_other_kinds_are_refused() {
        let good = hash_password("secret-password").unwrap();
        assert!(Hashed::parse(&good).unwrap().is_of("secret-password"));
        let salt_and_hash = &good[good.rfind("p=1").unwrap() + 3..];
        for bad in [
            "",
            "secret-password",
            "$2y$10$abcdefghijklmnopqrstuv",
            &good.replace("argon2id", "argon2i"),
            &good.replace("v=19", "v=16"),
            &good.replace("argon2id", "scrypt"),
            &format!("$argon2id$v=19$m=999999999,t=2,p=1{salt_and_hash}"),
            &format!("$argon2id$v=19$m=19456,t=99,p=1{salt_and_hash}"),
            &good[..good.rfind('$').unwrap()],
            "$argon2id$v=19$m=19456,t=2,p=1",
        ] {
            let reason = Hashed::parse(bad).err().unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(bad.is_empty() || !reason.contains(bad), "{reason}");
        }
    }
}
