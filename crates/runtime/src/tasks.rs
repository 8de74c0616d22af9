//! Task groups: every spawned future has a name, a group and a policy for its failure.
//!
//! A group is a cancellation token plus the set of its running tasks. Children are cancelled with their parent, and a
//! parent's join waits for the tasks of its children too. A panic is caught and becomes the task's error, so it ends
//! that task alone. Cancelling does not drop futures: a task watches [`TaskGroup::token`] and returns, so that what it
//! holds is closed in order. Nothing outside this module spawns.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use crate::BoxError;

/// What the error, or panic, of a task means for its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The group cannot go on: it is cancelled, and its join returns the first such error.
    CancelGroup,
    /// The error is logged and the group goes on.
    Log,
}

/// A task of a group failed.
#[derive(Debug, thiserror::Error)]
#[error("task {task}: {source}")]
pub struct TaskError {
    task: Arc<str>,
    source: BoxError,
}

/// The future of a task panicked.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

/// Tasks of a group were still running when the time to wait for them was over.
#[derive(Debug, thiserror::Error)]
#[error("still running after {waited:?}: {tasks}")]
pub struct StillRunning {
    waited: Duration,
    tasks: String,
}

struct Inner {
    name: Arc<str>,
    parent: Option<Arc<Inner>>,
    token: CancellationToken,
    tracker: TaskTracker,
    /// Names of the running tasks of this group and of its children, by a number that gives them an order.
    running: Mutex<BTreeMap<u64, Arc<str>>>,
    first_error: Mutex<Option<TaskError>>,
    /// The runtime that the group was made on, so that threads outside of it can spawn too.
    handle: Option<Handle>,
}

/// A set of named tasks which are stopped and joined together. Clones are the same group.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

/// Held by a running task; dropping it tells every group above that the task is gone.
struct Registration {
    number: u64,
    groups: Vec<(Arc<Inner>, TaskTrackerToken)>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        for (group, _) in &self.groups {
            lock(&group.running).remove(&self.number);
        }
    }
}

static NEXT_TASK: AtomicU64 = AtomicU64::new(0);

impl TaskGroup {
    /// A group of its own.
    pub fn new(name: &str) -> TaskGroup {
        TaskGroup::build(name.into(), None, CancellationToken::new())
    }

    /// A group that is cancelled with this one, and that this one's join waits for. An error of the child does not
    /// cancel the parent.
    pub fn child(&self, name: &str) -> TaskGroup {
        let name = format!("{}/{name}", self.inner.name).into();
        TaskGroup::build(name, Some(Arc::clone(&self.inner)), self.inner.token.child_token())
    }

    fn build(name: Arc<str>, parent: Option<Arc<Inner>>, token: CancellationToken) -> TaskGroup {
        let handle = Handle::try_current().ok().or_else(|| parent.as_ref().and_then(|p| p.handle.clone()));
        TaskGroup {
            inner: Arc::new(Inner {
                name,
                parent,
                token,
                tracker: TaskTracker::new(),
                running: Mutex::default(),
                first_error: Mutex::default(),
                handle,
            }),
        }
    }

    /// The name given at construction, with the names of the parents before it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The stop signal of this group, which its tasks watch.
    pub fn token(&self) -> &CancellationToken {
        &self.inner.token
    }

    /// Asks every task of this group and of its children to stop.
    pub fn cancel(&self) {
        self.inner.token.cancel();
    }

    /// Runs `future` as a task of this group. May be called from any thread if the group was made within a runtime.
    pub fn spawn<F>(&self, name: &str, on_error: OnError, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let task: Arc<str> = format!("{}/{name}", self.inner.name).into();
        let registration = self.register(&task);
        let inner = Arc::clone(&self.inner);
        // Combinators rather than an async block, which would keep room for the future twice: where it was captured, and
        // where it is awaited.
        self.start(AssertUnwindSafe(future).catch_unwind().map(move |outcome| {
            let _registration = registration;
            let outcome = outcome.unwrap_or_else(|panic| Err(Panicked(panic_text(&*panic)).into()));
            if let Err(source) = outcome {
                inner.failed(TaskError { task, source }, on_error);
            }
        }));
    }

    /// Runs `f` on a thread where blocking is allowed, within the span of the caller; the returned future gives its result.
    /// A panic of `f` goes on in whoever awaits.
    pub fn spawn_blocking<F, T>(&self, name: &str, f: F) -> impl Future<Output = T> + Send + 'static
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let task: Arc<str> = format!("{}/{name}", self.inner.name).into();
        let registration = self.register(&task);
        let span = Span::current();
        let work = move || {
            let _registration = registration;
            span.in_scope(f)
        };
        let join = match &self.inner.handle {
            Some(handle) => handle.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        async move {
            match join.await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is being torn down, and with it whoever waits here.
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }

    /// Waits until no task of this group or of its children runs. Does not cancel.
    ///
    /// # Errors
    /// The first error of a task whose policy is [`OnError::CancelGroup`].
    pub async fn join(&self) -> Result<(), BoxError> {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        match lock(&self.inner.first_error).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// [`TaskGroup::join`] for at most `limit`.
    ///
    /// # Errors
    /// As `join`, or [`StillRunning`], which names the tasks that did not end.
    pub async fn join_within(&self, limit: Duration) -> Result<(), BoxError> {
        match tokio::time::timeout(limit, self.join()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let tasks: Vec<String> = self.running().iter().map(ToString::to_string).collect();
                Err(StillRunning { waited: limit, tasks: tasks.join(", ") }.into())
            }
        }
    }

    /// Names of the tasks that run now, oldest first.
    pub fn running(&self) -> Vec<Arc<str>> {
        lock(&self.inner.running).values().cloned().collect()
    }

    fn register(&self, task: &Arc<str>) -> Registration {
        let number = NEXT_TASK.fetch_add(1, Ordering::Relaxed);
        let mut groups = Vec::new();
        let mut next = Some(&self.inner);
        while let Some(group) = next {
            lock(&group.running).insert(number, Arc::clone(task));
            groups.push((Arc::clone(group), group.tracker.token()));
            next = group.parent.as_ref();
        }
        Registration { number, groups }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]
    fn start(&self, future: impl Future<Output = ()> + Send + 'static) {
        match &self.inner.handle {
            Some(handle) => drop(handle.spawn(future)),
            None => drop(tokio::spawn(future)),
        }
    }
}

impl Inner {
    fn failed(&self, error: TaskError, on_error: OnError) {
        tracing::error!(task = %error.task, error = %error.source, "task failed");
        if on_error == OnError::CancelGroup {
            lock(&self.first_error).get_or_insert(error);
            self.token.cancel();
        }
    }
}

impl std::fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskGroup").field("name", &self.inner.name).field("running", &self.running()).finish()
    }
}

/// What a panic said, from what `catch_unwind` returned.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_critical_error_cancels_the_group_and_is_returned_by_join() {
        let group = TaskGroup::new("g");
        let token = group.token().clone();
        group.spawn("waits", OnError::Log, async move {
            token.cancelled().await;
            Ok(())
        });
        group.spawn("fails", OnError::CancelGroup, async { Err("no disk".into()) });
        assert_eq!(group.join().await.unwrap_err().to_string(), "task g/fails: no disk");
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone() {
        let group = TaskGroup::new("g");
        group.spawn("panics", OnError::Log, async { panic!("of {}", 1) });
        group.join().await.unwrap();
        assert!(!group.token().is_cancelled());
        group.spawn("panics", OnError::CancelGroup, async { panic!("of {}", 2) });
        assert_eq!(group.join().await.unwrap_err().to_string(), "task g/panics: panicked: of 2");
    }

    #[tokio::test]
    async fn children_are_cancelled_and_joined_with_their_parent() {
        let group = TaskGroup::new("g");
        let child = group.child("c");
        let token = child.token().clone();
        child.spawn("t", OnError::CancelGroup, async move {
            token.cancelled().await;
            Err("child".into())
        });
        let stuck = group.join_within(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(stuck.to_string(), "still running after 1ms: g/c/t");
        group.cancel();
        group.join().await.unwrap();
        assert!(child.join().await.is_err());
        assert!(group.running().is_empty());
    }

    #[tokio::test]
    async fn blocking_work_returns_its_value_and_its_panic() {
        let group = TaskGroup::new("g");
        assert_eq!(group.spawn_blocking("b", || 7).await, 7);
        let panics = group.spawn_blocking("b", || -> u8 { panic!("blocked") });
        let caught = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
        assert_eq!(panic_text(&*caught), "blocked");
    }

    #[tokio::test]
    async fn a_thread_outside_of_the_runtime_can_spawn() {
        let group = TaskGroup::new("g");
        let (send, receive) = tokio::sync::oneshot::channel();
        let other = group.clone();
        let thread = std::thread::spawn(move || {
            other.spawn("t", OnError::Log, async move {
                send.send(5).map_err(|_| "nobody waits")?;
                Ok(())
            });
        });
        thread.join().unwrap();
        assert_eq!(receive.await, Ok(5));
    }
}
