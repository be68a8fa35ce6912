//! Who polls the pipeline: a task of its own, or the one call that waits for it.
//!
//! A task costs a lone caller two changes of threads for every confirm. So a call that comes while there is no other, and
//! nothing is under way, polls the pipeline together with itself. When another call comes, or this one goes, the task goes
//! on: a call that is not polled any more holds up nobody but itself.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt as _;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::publisher::CAPACITY;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the work going. The work knows it as its waker.
pub(super) struct Driver {
    /// `None` once it has ended.
    work: Mutex<Option<Work>>,
    roles: Mutex<Roles>,
    /// All of [`CAPACITY`] when nothing is under way.
    room: Arc<Semaphore>,
    /// Where the timers and tasks of the work belong, whoever polls it.
    runtime: Handle,
}

#[derive(Default)]
struct Roles {
    /// Calls that wait for an outcome.
    calls: usize,
    /// The call that polls the work, if the task does not.
    lone: Option<Lone>,
    task: Option<Waker>,
    closed: bool,
}

enum Lone {
    /// It is going to poll, and need not be woken for that.
    Starting,
    Waiting(Waker),
}

impl Driver {
    /// Starts the task on the current runtime. Nothing is under way while `room` has all its permits.
    pub(super) fn start(
        work: impl Future<Output = ()> + Send + 'static,
        room: Arc<Semaphore>,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let runtime = Handle::current();
        // A panic ends the work, not the call that happens to poll it.
        let work = AssertUnwindSafe(work).catch_unwind().map(|end| {
            if end.is_err() {
                tracing::error!("the publishing of this connection has ended with a panic");
            }
        });
        let work = Mutex::new(Some(Box::pin(work) as Work));
        let driver = Arc::new(Self { work, roles: Mutex::default(), room, runtime });
        let task = driver.runtime.spawn(driver.clone().run());
        (driver, task)
    }

    async fn run(self: Arc<Self>) {
        let driver = End(self);
        std::future::poll_fn(|cx| driver.0.poll_as_task(cx)).await;
    }

    /// Begins a call. A `short` one polls the work by itself if nothing else is going on.
    pub(super) fn enter(self: &Arc<Self>, short: bool) -> Call {
        let mut roles = self.roles.lock();
        roles.calls += 1;
        let lone = short && roles.calls == 1 && !roles.closed && self.is_idle();
        if lone {
            roles.lone = Some(Lone::Starting);
        } else {
            take_over(roles);
        }
        Call { driver: self.clone(), lone }
    }

    fn is_idle(&self) -> bool {
        self.room.available_permits() == CAPACITY
    }

    /// From now on only the task polls.
    pub(super) fn close(&self) {
        let mut roles = self.roles.lock();
        roles.closed = true;
        take_over(roles);
    }

    fn poll_as_task(self: &Arc<Self>, cx: &Context<'_>) -> Poll<()> {
        let mut roles = self.roles.lock();
        let old = roles.task.replace(cx.waker().clone());
        let lone = roles.lone.is_some();
        drop(roles);
        drop(old);
        if lone { Poll::Pending } else { self.poll() }
    }

    fn poll(self: &Arc<Self>) -> Poll<()> {
        let waker = Waker::from(self.clone());
        let inside = self.runtime.enter();
        let mut work = self.work.lock();
        let Some(running) = work.as_mut() else { return Poll::Ready(()) };
        std::task::ready!(running.as_mut().poll(&mut Context::from_waker(&waker)));
        let ended = work.take();
        drop(work);
        drop(inside);
        drop(ended);
        // The task has to know, if it was not the task that polled.
        self.close();
        Poll::Ready(())
    }
}

/// Has the task go on in place of the lone call, which waits for its outcome like any other.
fn take_over(mut roles: MutexGuard<'_, Roles>) {
    let Some(lone) = roles.lone.take() else { return };
    let task = roles.task.clone();
    drop(roles);
    if let Lone::Waiting(call) = lone {
        call.wake();
    }
    if let Some(task) = task {
        task.wake();
    }
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let roles = self.roles.lock();
        let waker = match &roles.lone {
            None => roles.task.clone(),
            Some(Lone::Waiting(call)) => Some(call.clone()),
            Some(Lone::Starting) => None,
        };
        drop(roles);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Drops the work with the task, so that whoever waits for an outcome hears of it.
struct End(Arc<Driver>);

impl Drop for End {
    fn drop(&mut self) {
        let work = self.0.work.lock().take();
        drop(work);
        self.0.close();
    }
}

/// A call that waits for an outcome.
pub(super) struct Call {
    driver: Arc<Driver>,
    /// It began as the only one. While that lasts, [`Roles::lone`] is this call: there is no second one beside it.
    lone: bool,
}

impl Call {
    /// Polls the work if this is the lone call. `false`: the task does, and the outcome has to wake the caller.
    pub(super) fn drive(&self, cx: &Context<'_>) -> bool {
        if !self.lone {
            return false;
        }
        let mut roles = self.driver.roles.lock();
        let old = match &mut roles.lone {
            None => return false,
            Some(Lone::Waiting(same)) if same.will_wake(cx.waker()) => None,
            Some(other) => Some(std::mem::replace(other, Lone::Waiting(cx.waker().clone()))),
        };
        drop(roles);
        drop(old);
        // Should another call come meanwhile, it wakes this one to look again.
        self.driver.poll().is_pending()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut roles = self.driver.roles.lock();
        roles.calls -= 1;
        if !self.lone {
            return;
        }
        if !self.driver.is_idle() {
            return take_over(roles);
        }
        let lone = roles.lone.take();
        drop(roles);
        drop(lone);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::mpsc;

    use super::*;

    /// Work that keeps a permit for each message from its beginning to its end.
    struct Echo {
        room: Arc<Semaphore>,
        begin: mpsc::UnboundedSender<bool>,
        end: Arc<Semaphore>,
        handled: Arc<AtomicUsize>,
        driver: Arc<Driver>,
    }

    fn echo() -> Echo {
        let (begin, mut inbox) = mpsc::unbounded_channel::<bool>();
        let [room, end] = [CAPACITY, 0].map(|permits| Arc::new(Semaphore::new(permits)));
        let handled = Arc::new(AtomicUsize::new(0));
        let work = {
            let (room, end, handled) = (room.clone(), end.clone(), handled.clone());
            async move {
                while let Some(well) = inbox.recv().await {
                    assert!(well, "told to panic");
                    end.acquire().await.unwrap().forget();
                    handled.fetch_add(1, SeqCst);
                    room.add_permits(1);
                }
            }
        };
        let (driver, _task) = Driver::start(work, room.clone());
        Echo { room, begin, end, handled, driver }
    }

    impl Echo {
        fn call(&self) -> Call {
            let call = self.driver.enter(true);
            self.room.try_acquire().unwrap().forget();
            self.begin.send(true).unwrap();
            call
        }

        fn drive(&self, call: &Call) -> bool {
            call.drive(&Context::from_waker(Waker::noop())) && self.handled.load(SeqCst) == 0
        }

        async fn handled(&self, count: usize) {
            while self.handled.load(SeqCst) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn the_only_call_does_all_by_itself() {
        let echo = echo();
        tokio::task::yield_now().await;
        let call = echo.call();
        assert!(echo.drive(&call));
        echo.end.add_permits(1);
        // Nobody else had a chance: this is a runtime of one thread.
        assert!(call.drive(&Context::from_waker(Waker::noop())));
        assert_eq!(echo.handled.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_task_goes_on_when_another_call_comes() {
        let echo = echo();
        let first = echo.call();
        assert!(echo.drive(&first));
        let second = echo.call();
        assert!(!second.drive(&Context::from_waker(Waker::noop())), "the task polls");
        assert!(!first.drive(&Context::from_waker(Waker::noop())), "the task polls");
        echo.end.add_permits(2);
        echo.handled(2).await;
    }

    #[tokio::test]
    async fn the_task_goes_on_when_the_call_is_dropped() {
        let echo = echo();
        let call = echo.call();
        assert!(echo.drive(&call));
        drop(call);
        echo.end.add_permits(1);
        echo.handled(1).await;
        // Before it has polled at all, too.
        drop(echo.call());
        echo.end.add_permits(1);
        echo.handled(2).await;
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_call() {
        let echo = echo();
        let call = echo.driver.enter(true);
        echo.begin.send(false).unwrap();
        assert!(!call.drive(&Context::from_waker(Waker::noop())));
        assert!(echo.begin.is_closed());
    }
}
