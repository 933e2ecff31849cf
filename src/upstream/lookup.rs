//! The look-up of the upstream's name: one at a time, shared by all who wait for it.
//!
//! 1. While one is under way no second one is started: what a resolver that says nothing leaves behind does not grow with
//!    the requests, even when those who asked have long left.
//! 2. What it finds is for all who wait for it; so is its failure.
//! 3. Who asks when it is over starts a new one: a change of address is followed.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

/// What a look-up came to.
pub type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The look-ups of one worker.
#[derive(Debug, Default)]
pub struct LookUps {
    last: RefCell<Option<watch::Receiver<Option<Found>>>>,
}

impl LookUps {
    /// What the look-up under way finds; where none is, that of `start`, which goes on when nobody waits any more.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn find<F>(&self, start: impl FnOnce() -> F) -> Found
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    {
        let mut found = self.under_way().unwrap_or_else(|| self.begin(start()));
        let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(Arc::new(io::Error::other("the look-up was given up"))))
    }

    fn under_way(&self) -> Option<watch::Receiver<Option<Found>>> {
        // Its sender is gone when it is over.
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

    /// A resolver that says nothing before it is let, and counts.
    struct Resolver {
        look_ups: LookUps,
        started: Cell<usize>,
        lets: Semaphore,
    }

    impl Resolver {
        fn silent() -> Rc<Self> {
            Rc::new(Self { look_ups: LookUps::default(), started: Cell::new(0), lets: Semaphore::new(0) })
        }

        /// Asks as a dial does, which leaves when its time is over.
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

        /// Many ask at once.
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
    fn a_resolver_that_says_nothing_is_asked_once_whoever_leaves() {
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
    fn what_is_found_is_for_all_who_wait_and_so_is_a_failure() {
        run(async {
            let resolver = Resolver::silent();
            assert_eq!(resolver.clone().ask(Duration::from_secs(1)).await, None);
            // The first is waited for by those who come later; each after it is a new one, and the third fails.
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
