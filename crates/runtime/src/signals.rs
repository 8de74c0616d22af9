//! The signals that ask the process to stop.
//!
//! The first one begins an orderly end: what is under way is finished, handed over and stored, within deadlines. The second
//! one says that nobody wants to wait for that: the process leaves at once. It may, since whatever was acknowledged is on disk
//! or replicated before it is acknowledged; the next process takes it up from there.
//!
//! Who passes signals on, as `timeout` does, may send one to the process and again to its group. So a signal that follows the
//! first at once is an echo, and no second one.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::Clock;

/// How long signals are echoes of the first.
const ECHO: Duration = Duration::from_millis(100);
/// How long a process leaves before it says that it does.
const REMARK: Duration = Duration::from_secs(3);

/// A request from outside to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: a supervisor stops the process.
    Terminate,
    /// SIGINT: a person pressed Ctrl-C.
    Interrupt,
}

/// Receives the signals that ask this process to stop, instead of the default of dying at once.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// If the operating system refuses the handler.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal.
    pub async fn recv(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            else => std::future::pending().await,
        }
    }

    /// Runs `work` until it ends, or until a signal.
    ///
    /// # Errors
    /// The signal, if it came first. `work` is dropped then.
    pub async fn or_stop<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            biased;
            signal = self.recv() => Err(signal),
            outcome = work => Ok(outcome),
        }
    }

    /// Runs `leaving`, which is what the first signal has begun. A further signal, a tenth of a second later or more, ends the
    /// process at once and with status 1, without running anything that is left; `program` is what the line about it on standard
    /// error calls the process. Another line says so, if leaving takes some seconds.
    pub async fn or_leave<T>(&mut self, program: &str, leaving: impl Future<Output = T>) -> T {
        self.or_leave_after(ECHO, program, leaving).await
    }

    async fn or_leave_after<T>(
        &mut self,
        echo: Duration,
        program: &str,
        leaving: impl Future<Output = T>,
    ) -> T {
        let clock = Clock::system();
        let begun = clock.now();
        let remark = async {
            clock.sleep(REMARK).await;
            eprintln!("{program}: leaving takes a while; one more signal ends it at once");
            std::future::pending().await
        };
        let mut leaving = pin!(async {
            tokio::select! {
                biased;
                outcome = leaving => outcome,
                outcome = remark => outcome,
            }
        });
        loop {
            match self.or_stop(&mut leaving).await {
                Ok(outcome) => return outcome,
                Err(_echo) if clock.now() - begun < echo => {}
                Err(signal) => {
                    eprintln!("{program}: second {signal:?}, leaving at once");
                    std::process::exit(1)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_of_this_process_is_received() {
        let mut signals = Signals::install().unwrap();
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        assert_eq!(signals.recv().await, Signal::Terminate);
        rustix::process::kill_process(me, rustix::process::Signal::INT).unwrap();
        assert_eq!(signals.recv().await, Signal::Interrupt);

        assert_eq!(signals.or_stop(async { 7 }).await, Ok(7));
        assert_eq!(signals.or_leave("test", async { 8 }).await, 8);
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        let endless = std::future::pending::<()>();
        assert_eq!(signals.or_stop(endless).await, Err(Signal::Terminate));

        // An echo, however slow this machine is, after which there is something left to do.
        let mut witness = Signals::install().unwrap();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        assert_eq!(signals.or_leave_after(Duration::MAX, "test", witness.recv()).await, Signal::Terminate);
    }
}
