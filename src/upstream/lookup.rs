//! The look-up of the upstream's name: one at a time, shared by all requests that wait for it.
//!
//! 1. At most one look-up is under way, so an unresponsive resolver does not accumulate look-ups, even after the requests
//!    that asked have left.
//! 2. All waiting requests share the result or the failure.
//! 3. The first request after a look-up ends starts a new one, so address changes are followed.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

/// The result of a look-up.
pub type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The look-ups of one worker.
#[derive(Debug, Default)]
pub struct LookUps {
    last: RefCell<Option<watch::Receiver<Option<Found>>>>,
}

impl LookUps {
    /// Returns the result of the look-up under way, or else of `start`, which continues even when no request waits any
    /// more.
    ///
    /// # Errors
    /// The error of the look-up.
    pub async fn find<F>(&self, start: impl FnOnce() -> F) -> Found
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    {
        let mut found = self.under_way().unwrap_or_else(|| self.begin(start()));
        let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(Arc::new(io::Error::other("the look-up was cancelled"))))
    }

    fn under_way(&self) -> Option<watch::Receiver<Option<Found>>> {
        // The sender is dropped when the look-up ends.
        self.last.borrow().as_ref().filter(|last| last.has_changed().is_ok()).cloned()
    }

    fn begin(
        &self,
        look_up: impl Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    ) -> watch::Receiver<Option<Found>> {
        let (over, found) = watch::channel(None);
        self.last.replace(Some(found.clone()));
        tokio::task::spawn_local(async move {
            let _ = over.send(Some(look_up.await.map_err(Arc::new)));
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    /// A resolver that responds only when permitted, and counts look-ups.
    struct Resolver {
        look_ups: LookUps,
        started: Cell<usize>,
        lets: Semaphore,
    }

    impl Resolver {
        fn silent() -> Rc<Self> {
            Rc::new(Self { look_ups: LookUps::default(), started: Cell::new(0), lets: Semaphore::new(0) })
        }

        /// Asks as a dial does, giving up after `limit`.
        async fn ask(self: Rc<Self>, limit: Duration) -> Option<Result<usize, io::ErrorKind>> {
            let start = || {
                self.started.set(self.started.get() + 1);
                let (this, number) = (self.clone(), self.started.get());
                async move {
                    this.lets.acquire().await.unwrap().forget();
                    let addresses = vec!["127.0.0.1:1".parse().unwrap(); number];
                    if number == 3 { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
                }
            };
            let found = timeout(limit, self.look_ups.find(start)).await.ok()?;
            Some(found.map(|addresses| addresses.len()).map_err(|error| error.kind()))
        }

        /// Asks many times at once.
        fn many(self: &Rc<Self>, limit: Duration) -> JoinSet<Option<Result<usize, io::ErrorKind>>> {
            let mut asking = JoinSet::new();
            for _ in 0..100 {
                asking.spawn_local(self.clone().ask(limit));
            }
            asking
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build_local(Default::default()).unwrap().block_on(test);
    }

    #[test]
    fn a_silent_resolver_is_asked_once_even_if_requests_leave() {
        run(async {
            let resolver = Resolver::silent();
            for _ in 0..5 {
                let left = resolver.many(Duration::from_secs(1)).join_all().await;
                assert!(left.iter().all(Option::is_none), "{left:?}");
                assert_eq!(resolver.started.get(), 1);
            }
        });
    }

    #[test]
    fn a_result_or_failure_is_shared_by_all_waiting_requests() {
        run(async {
            let resolver = Resolver::silent();
            assert_eq!(resolver.clone().ask(Duration::from_secs(1)).await, None);
            // Later requests share the first look-up; each after it is new, and the third fails.
            for (number, expected) in [(1, Ok(1)), (2, Ok(2)), (3, Err(io::ErrorKind::NotFound)), (4, Ok(4))] {
                let asking = resolver.many(Duration::from_secs(60));
                tokio::task::yield_now().await;
                resolver.lets.add_permits(1);
                let found = asking.join_all().await;
                assert_eq!(found, vec![Some(expected); 100]);
                assert_eq!(resolver.started.get(), number);
            }
        });
    }
}
