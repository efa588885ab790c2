//! Locks that are waited for until a deadline.
//!
//! The standard library's locks have no deadline. parking_lot's have one, but its first wait leaves a
//! thread-local with a destructor behind, and libc then does not unload the library until that thread has
//! ended: the cameras would stay held after dlclose.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Instant;

use crate::policy;

/// What a panic in a call left behind is looked at by the next call: a lock is not lost by it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// `None` when the lock was not to be had by the deadline; without one, waits for as long as it takes.
pub fn lock_by<T>(mutex: &Mutex<T>, deadline: Option<Instant>) -> Option<MutexGuard<'_, T>> {
    match deadline {
        None => Some(lock(mutex)),
        Some(deadline) => retry_by(deadline, || mutex.try_lock()),
    }
}

pub fn write_by<T>(lock: &RwLock<T>, deadline: Option<Instant>) -> Option<RwLockWriteGuard<'_, T>> {
    match deadline {
        None => Some(write(lock)),
        Some(deadline) => retry_by(deadline, || lock.try_write()),
    }
}

fn retry_by<G>(deadline: Instant, mut attempt: impl FnMut() -> Result<G, TryLockError<G>>) -> Option<G> {
    loop {
        match attempt() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(policy::TIGHT_STEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_ends_the_wait() {
        let mutex = Mutex::new(1);
        let kept = lock(&mutex);
        let begun = Instant::now();
        assert!(lock_by(&mutex, Some(begun + Duration::from_millis(20))).is_none());
        assert!(begun.elapsed() >= Duration::from_millis(20));
        drop(kept);
        assert_eq!(*lock_by(&mutex, Some(begun)).unwrap(), 1, "a free lock is had even after the deadline");
        let shared = RwLock::new(2);
        let reader = read(&shared);
        assert!(write_by(&shared, Some(Instant::now())).is_none());
        drop(reader);
        *write_by(&shared, None).unwrap() = 3;
        assert_eq!(*read(&shared), 3);
    }
}
