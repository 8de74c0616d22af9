//! Black-box harness: real Courant processes over loopback, in a directory of their own.
//!
//! Tests and the demo start the programs that users run, kill them with real signals and look only at what a user can
//! see: exit statuses, output, journals and sums.

pub mod appender;
pub mod authority;
pub mod caller;
pub mod cluster;
pub mod etcd_loss;
pub mod fault;
pub mod fleet;
pub mod historical;
pub mod history;
pub mod idle;
pub mod load;
pub mod manifests;
pub mod measure;
pub mod process;
pub mod readback;
pub mod replacement;
pub mod report;
pub mod ring;
pub mod sandbox;
pub mod seed;
pub mod tiering;
pub mod traffic;
pub mod walkthrough;
