//! The signals that ask the process to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

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
    }
}
