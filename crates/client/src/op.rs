//! Futures of started operations: shared, cheap to clone, and usable from threads which run no async code.
//!
//! An operation goes on whether or not its future is awaited. Its promise resolves it once; a promise which is dropped
//! resolves it with an error, so that nobody waits for an operation which nobody carries out.

use crate::error::ClientError;
use proto::protocol::{AppendResponse, Status};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why an operation failed. Shared by all who wait for it.
#[derive(Clone, Debug)]
pub enum OpError {
    /// The operation's owner was told to stop. Its outcome is unknown.
    Cancelled,
    /// The operation's owner went away. Its outcome is unknown.
    Abandoned,
    /// The operation had to wait for another one, which failed. It had no effect.
    Dependency(Arc<OpError>),
    /// A request failed for good.
    Client(ClientError),
    /// Anything else, as applications and stores report it.
    Failed(Arc<dyn Error + Send + Sync>),
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpError::Cancelled => f.write_str("operation was cancelled"),
            OpError::Abandoned => f.write_str("operation was abandoned"),
            OpError::Dependency(error) => write!(f, "dependency failed: {error}"),
            OpError::Client(error) => error.fmt(f),
            OpError::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpError::Cancelled | OpError::Abandoned => None,
            OpError::Dependency(error) => Some(&**error),
            OpError::Client(error) => error.source(),
            OpError::Failed(error) => error.source(),
        }
    }
}

impl OpError {
    /// Any error as an operation's.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> OpError {
        OpError::Failed(Arc::from(error.into()))
    }

    /// The error at the bottom of a chain of dependencies.
    pub fn root(&self) -> &OpError {
        match self {
            OpError::Dependency(error) => error.root(),
            other => other,
        }
    }

    /// Whether another writer took over: a journal's registers no longer match. This process must stop writing. Looks
    /// through the sources of what others reported.
    pub fn is_fenced(&self) -> bool {
        let mut cause = match self.root() {
            OpError::Failed(error) => Some(&**error as &(dyn Error + 'static)),
            root => return root.status() == Some(Status::RegisterMismatch),
        };
        while let Some(error) = cause {
            if error.downcast_ref::<OpError>().is_some_and(OpError::is_fenced) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether the operation, or one that it depends on, was told to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.root(), OpError::Cancelled | OpError::Abandoned)
    }

    /// The broker's status at the bottom of this error.
    pub fn status(&self) -> Option<Status> {
        match self.root() {
            OpError::Client(error) => error.status(),
            _ => None,
        }
    }
}

impl From<ClientError> for OpError {
    fn from(error: ClientError) -> OpError {
        match error {
            ClientError::Cancelled => OpError::Cancelled,
            error => OpError::Client(error),
        }
    }
}

struct State<T> {
    result: Option<Result<T, OpError>>,
    /// Of each handle which is being awaited.
    wakers: BTreeMap<u64, Waker>,
    next_waker: u64,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    resolved: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, result: Result<T, OpError>) {
        let wakers = {
            let mut state = self.lock();
            if state.result.is_none() {
                state.result = Some(result);
            }
            std::mem::take(&mut state.wakers)
        };
        self.resolved.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }
}

/// One waiter of an operation.
struct Handle<T> {
    shared: Arc<Shared<T>>,
    waker: Option<u64>,
}

impl<T: Clone> Handle<T> {
    fn new(result: Option<Result<T, OpError>>) -> Handle<T> {
        let state = Mutex::new(State { result, wakers: BTreeMap::new(), next_waker: 0 });
        Handle { shared: Arc::new(Shared { state, resolved: Condvar::new() }), waker: None }
    }

    fn try_result(&self) -> Option<Result<T, OpError>> {
        self.shared.lock().result.clone()
    }

    fn wait_blocking(&self) -> Result<T, OpError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            state = self.shared.resolved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, OpError>> {
        let mut state = self.shared.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        let key = *self.waker.get_or_insert_with(|| {
            state.next_waker += 1;
            state.next_waker
        });
        state.wakers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Handle<T> {
        Handle { shared: Arc::clone(&self.shared), waker: None }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        if let Some(key) = self.waker {
            self.shared.lock().wakers.remove(&key);
        }
    }
}

/// Resolves an operation. If it is dropped before, the operation fails as abandoned.
pub(crate) struct Promise<T>(Option<Arc<Shared<T>>>);

impl<T> Promise<T> {
    pub(crate) fn resolve(mut self, result: Result<T, OpError>) {
        if let Some(shared) = self.0.take() {
            shared.resolve(result);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.resolve(Err(OpError::Abandoned));
        }
    }
}

/// Resolves an [`OpFuture`]. If it is dropped before, the operation fails as abandoned.
pub struct OpPromise(Promise<()>);

impl OpPromise {
    /// Resolves the operation.
    pub fn resolve(self, result: Result<(), OpError>) {
        self.0.resolve(result);
    }
}

#[derive(Clone)]
enum Op {
    Plain(Handle<()>),
    Append(Handle<Arc<AppendResponse>>),
}

/// An operation without result. Clones wait for the same operation; two futures are equal if they are clones.
#[derive(Clone)]
pub struct OpFuture(Op);

impl OpFuture {
    /// An operation which already ended.
    pub fn resolved(result: Result<(), OpError>) -> OpFuture {
        OpFuture(Op::Plain(Handle::new(Some(result))))
    }

    /// An operation which its promise resolves.
    pub fn pair() -> (OpPromise, OpFuture) {
        let handle = Handle::new(None);
        (OpPromise(Promise(Some(Arc::clone(&handle.shared)))), OpFuture(Op::Plain(handle)))
    }

    /// How the operation ended, if it has.
    pub fn try_result(&self) -> Option<Result<(), OpError>> {
        match &self.0 {
            Op::Plain(handle) => handle.try_result(),
            Op::Append(handle) => handle.try_result().map(|result| result.map(drop)),
        }
    }

    /// Blocks this thread until the operation ends. Never called from async code.
    pub fn wait_blocking(&self) -> Result<(), OpError> {
        match &self.0 {
            Op::Plain(handle) => handle.wait_blocking(),
            Op::Append(handle) => handle.wait_blocking().map(drop),
        }
    }

    fn identity(&self) -> *const () {
        match &self.0 {
            Op::Plain(handle) => Arc::as_ptr(&handle.shared).cast(),
            Op::Append(handle) => Arc::as_ptr(&handle.shared).cast(),
        }
    }
}

impl PartialEq for OpFuture {
    fn eq(&self, other: &OpFuture) -> bool {
        std::ptr::eq(self.identity(), other.identity())
    }
}

impl Eq for OpFuture {}

impl Future for OpFuture {
    type Output = Result<(), OpError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Op::Plain(handle) => handle.poll(context),
            Op::Append(handle) => handle.poll(context).map(|result| result.map(drop)),
        }
    }
}

impl fmt::Debug for OpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpFuture").field(&self.try_result()).finish()
    }
}

/// A started append, with the broker's response. Appends of one batch share it. Clones wait for the same append.
#[derive(Clone)]
pub struct AppendFuture(Handle<Arc<AppendResponse>>);

impl AppendFuture {
    pub(crate) fn pair() -> (Promise<Arc<AppendResponse>>, AppendFuture) {
        let handle = Handle::new(None);
        (Promise(Some(Arc::clone(&handle.shared))), AppendFuture(handle))
    }

    /// An append which already ended.
    pub fn resolved(result: Result<Arc<AppendResponse>, OpError>) -> AppendFuture {
        AppendFuture(Handle::new(Some(result)))
    }

    /// This append as an operation to wait for.
    pub fn op(&self) -> OpFuture {
        OpFuture(Op::Append(self.0.clone()))
    }

    /// How the append ended, if it has. The response's status is OK.
    pub fn try_result(&self) -> Option<Result<Arc<AppendResponse>, OpError>> {
        self.0.try_result()
    }

    /// Blocks this thread until the append ends. Never called from async code.
    pub fn wait_blocking(&self) -> Result<Arc<AppendResponse>, OpError> {
        self.0.wait_blocking()
    }
}

impl Future for AppendFuture {
    type Output = Result<Arc<AppendResponse>, OpError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl fmt::Debug for AppendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppendFuture").field(&self.try_result()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_result_on_any_thread() {
        let (promise, op) = OpFuture::pair();
        let (a, b) = (op.clone(), op.clone());
        let thread = std::thread::spawn(move || a.wait_blocking());
        let awaited = futures::future::join(b, async {
            assert!(op.try_result().is_none());
            promise.resolve(Ok(()));
        });
        assert!(awaited.await.0.is_ok());
        assert!(thread.join().unwrap().is_ok());
        assert!(op.try_result().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_dropped_promise_fails_its_operation() {
        let (promise, op) = OpFuture::pair();
        drop(promise);
        assert!(matches!(op.await, Err(OpError::Abandoned)));
    }

    #[tokio::test]
    async fn dropped_waiters_leave_nothing_behind() {
        let (_promise, op) = OpFuture::pair();
        for _ in 0..10 {
            assert!(futures::poll!(op.clone()).is_pending());
        }
        let Op::Plain(handle) = &op.0 else { panic!() };
        assert!(handle.shared.lock().wakers.is_empty());
    }

    #[test]
    fn an_append_and_its_operation_are_one() {
        let (promise, append) = AppendFuture::pair();
        assert_eq!(append.op(), append.clone().op());
        assert_ne!(append.op(), OpFuture::resolved(Ok(())));
        promise.resolve(Err(OpError::Cancelled));
        assert!(append.op().wait_blocking().unwrap_err().is_cancelled());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("record failed")]
    struct Recorded(#[source] OpError);

    #[test]
    fn a_fence_shows_through_dependencies_and_through_what_others_report() {
        let fenced = OpError::from(ClientError::journal("a/log", Status::RegisterMismatch));
        let error = OpError::Dependency(Arc::new(OpError::Dependency(Arc::new(fenced.clone()))));
        assert!(error.is_fenced() && !error.is_cancelled());
        assert_eq!(error.to_string(), "dependency failed: dependency failed: a/log: REGISTER_MISMATCH");
        let reported = OpError::failed(Recorded(fenced));
        assert!(reported.is_fenced());
        assert!(OpError::Dependency(Arc::new(reported.clone())).is_fenced());
        assert_eq!(runtime::grpc::chain_text(&reported), "record failed: a/log: REGISTER_MISMATCH");
        assert!(!OpError::failed(Recorded(OpError::Cancelled)).is_fenced());
        assert!(!OpError::failed("plain").is_fenced());
    }
}
