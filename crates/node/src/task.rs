//! Tasks of the event loop. A panic in one of them is a bug that leaves a connection or a process unattended: the node
//! ends then, on which everybody learns that it did, instead of waiting for ever.

use std::rc::Rc;

use tokio::sync::Notify;

/// Starts tasks, and tells when one of them panicked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    panicked: Rc<Notify>,
}

/// Lives in a task; its drop sees whether the task is being unwound.
struct Alarm(Rc<Notify>);

impl Tasks {
    /// Runs a future on this thread's event loop.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let alarm = Alarm(Rc::clone(&self.panicked));
        tokio::task::spawn_local(async move {
            let _alarm = alarm;
            future.await;
        });
    }

    /// Waits until a task panics.
    pub(crate) async fn panicked(&self) {
        self.panicked.notified().await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_task_is_told_and_a_normal_end_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let tasks = Tasks::default();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            tasks.spawn(async move { sender.send(()).unwrap() });
            receiver.await.unwrap();
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                () = tasks.panicked() => panic!("nothing happened"),
                () = std::future::ready(()) => {}
            }
            tasks.spawn(async {
                tokio::task::yield_now().await;
                std::panic::resume_unwind(Box::new("without a message in the test's output"));
            });
            tasks.panicked().await;
        });
    }
}
