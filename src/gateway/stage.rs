//! A stage decides at once whether a request continues, and in which form; this module has the tower plumbing for it.
//!
//! Stages are synchronous, so the plumbing needs no box: the future is either a ready refusal or the rest of the stack.
//! Only `Forward`, the end of the stack, waits.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::policy::rejection::Rejection;

/// One decision on the path of a request.
pub trait Stage<In> {
    /// The form of the request after this stage.
    type Out;

    /// Passes a request on, or refuses it.
    ///
    /// # Errors
    /// The [`Rejection`] that the caller receives.
    fn run(&self, input: In) -> Result<Self::Out, Rejection>;
}

/// Puts a stage in front of a service.
pub const fn stage<S>(stage: S) -> StageLayer<S> {
    StageLayer { stage }
}

/// The layer that [`stage`] returns.
#[derive(Debug, Clone)]
pub struct StageLayer<S> {
    stage: S,
}

impl<S: Clone, I> Layer<I> for StageLayer<S> {
    type Service = Staged<S, I>;

    fn layer(&self, inner: I) -> Self::Service {
        Staged { stage: self.stage.clone(), inner }
    }
}

/// A service behind a stage.
#[derive(Debug, Clone)]
pub struct Staged<S, I> {
    stage: S,
    inner: I,
}

impl<S, I, In> Service<In> for Staged<S, I>
where
    S: Stage<In>,
    I: Service<S::Out, Error = Rejection>,
{
    type Response = I::Response;
    type Error = Rejection;
    type Future = StagedFuture<I::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, input: In) -> Self::Future {
        match self.stage.run(input) {
            Ok(output) => StagedFuture::Onward { inner: self.inner.call(output) },
            Err(rejection) => StagedFuture::Refused { rejection: Some(rejection) },
        }
    }
}

pin_project! {
    /// The future of a staged service: the inner future, or a refusal.
    #[project = StagedFutureProjection]
    pub enum StagedFuture<F> {
        Onward { #[pin] inner: F },
        Refused { rejection: Option<Rejection> },
    }
}

impl<F, T> Future for StagedFuture<F>
where
    F: Future<Output = Result<T, Rejection>>,
{
    type Output = Result<T, Rejection>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            StagedFutureProjection::Onward { inner } => inner.poll(context),
            StagedFutureProjection::Refused { rejection } => Poll::Ready(Err(match rejection.take() {
                Some(rejection) => rejection,
                None => Rejection::internal("a request is refused once"),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;
    use crate::policy::rejection::Reason;

    #[test]
    fn a_refusal_comes_once_and_never_hangs() {
        let refused = StagedFuture::<Ready<Result<(), Rejection>>>::Refused { rejection: Some(Reason::BadHost.into()) };
        let mut refused = pin!(refused);
        for expected in [Reason::BadHost, Reason::Internal] {
            let polled = refused.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Err(rejection)) if rejection.reason == expected));
        }
    }
}
