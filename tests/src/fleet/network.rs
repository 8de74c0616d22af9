//! Where the processes of a fleet listen, and how they are cut off from each other.
//!
//! On loopback, every process has a free port. In a [`sandbox`](crate::sandbox), every process has a network namespace with
//! an address of its own on one bridge, and a partition drops packets at the receiver's firewall: silently, in one
//! direction or both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use runtime::{BoxError, Entropy};
use tokio::process::Command;

use crate::sandbox;

/// Counts the networks of this process: links of an earlier one may take a while to go.
static NETWORKS: AtomicU32 = AtomicU32::new(0);
/// The first three bytes of every address on the bridge.
const SUBNET: [u8; 3] = [10, 91, 0];
/// The harness's own address.
const OWN: u8 = 254;
/// Ports for loopback: below those that the system gives to outgoing connections, as a process that is down must find its
/// port free when it comes back.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// The ports that this process was given.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
/// Attempts to find a free port.
const PORT_TRIES: u32 = 1000;

/// A place on the network.
#[derive(Clone, Debug)]
pub struct Place {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Runs a program there; empty on loopback.
    pub wrapper: Vec<String>,
}

impl Place {
    /// URL of what is served there.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

/// The network of one fleet.
#[derive(Debug)]
pub enum Network {
    /// Everything on 127.0.0.1.
    Loopback,
    /// A namespace for each process.
    Namespaces(Namespaces),
}

/// Namespaces on one bridge.
#[derive(Debug)]
pub struct Namespaces {
    bridge: String,
    /// By name.
    addresses: BTreeMap<String, Ipv4Addr>,
}

impl Network {
    /// The network that the surroundings permit.
    pub async fn new() -> Result<Network, BoxError> {
        if !sandbox::is_inside() {
            return Ok(Network::Loopback);
        }
        // What an earlier network of this sandbox has left: its processes are gone, and its address is needed.
        run(&["ip", "-all", "netns", "delete"]).await?;
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        if let Some(earlier) = number.checked_sub(1) {
            run(&["ip", "link", "delete", &format!("courant{earlier}")]).await?;
        }
        let (bridge, own) = (format!("courant{number}"), format!("{}/24", address(OWN)));
        run(&["ip", "link", "add", &bridge, "type", "bridge"]).await?;
        run(&["ip", "address", "add", &own, "dev", &bridge]).await?;
        run(&["ip", "link", "set", &bridge, "up"]).await?;
        Ok(Network::Namespaces(Namespaces { bridge, addresses: BTreeMap::new() }))
    }

    /// Whether processes can be cut off.
    pub fn can_partition(&self) -> bool {
        matches!(self, Network::Namespaces(_))
    }

    /// A new place. In a namespace of its own, `port` is free; on loopback another one is found.
    pub async fn add(&mut self, name: &str, port: u16) -> Result<Place, BoxError> {
        match self {
            Network::Loopback => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
                Ok(Place { scheme: "http", address, wrapper: Vec::new() })
            }
            Network::Namespaces(namespaces) => {
                let ip = namespaces.add(name).await?;
                let wrapper = ["ip", "netns", "exec", name].map(str::to_owned).to_vec();
                Ok(Place { scheme: "http", address: SocketAddr::from((ip, port)), wrapper })
            }
        }
    }

    /// Drops all packets that `from` sends to `to`, from now on.
    pub async fn cut(&self, from: &str, to: &str) -> Result<(), BoxError> {
        let Network::Namespaces(namespaces) = self else { return Err("loopback cannot be cut".into()) };
        let source =
            namespaces.addresses.get(from).ok_or_else(|| format!("no place is called {from}"))?.to_string();
        let rule = ["iptables", "-w", "-A", "INPUT", "-s", &source, "-j", "DROP"];
        run(&[&["ip", "netns", "exec", to][..], &rule].concat()).await
    }

    /// Ends every cut.
    pub async fn heal(&self) -> Result<(), BoxError> {
        let Network::Namespaces(namespaces) = self else { return Ok(()) };
        for name in namespaces.addresses.keys() {
            run(&["ip", "netns", "exec", name, "iptables", "-w", "-F", "INPUT"]).await?;
        }
        Ok(())
    }
}

fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last)
}

impl Namespaces {
    /// A new namespace, linked to the bridge. Gives its address.
    async fn add(&mut self, name: &str) -> Result<Ipv4Addr, BoxError> {
        let index = self.addresses.len();
        let ip = address(u8::try_from(index + 1)?);
        let (outer, prefixed) = (format!("{}v{index}", self.bridge), format!("{ip}/24"));
        run(&["ip", "netns", "add", name]).await?;
        run(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", name]).await?;
        run(&["ip", "link", "set", &outer, "master", &self.bridge, "up"]).await?;
        run(&["ip", "-n", name, "address", "add", &prefixed, "dev", "eth0"]).await?;
        run(&["ip", "-n", name, "link", "set", "eth0", "up"]).await?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"]).await?;
        self.addresses.insert(name.to_owned(), ip);
        Ok(ip)
    }
}

/// Runs a command to its end; an error says what it said.
pub async fn run(command: &[&str]) -> Result<(), BoxError> {
    let output = Command::new(command[0]).args(&command[1..]).output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", command.join(" "), output.status, said.trim()).into())
}

/// A port of loopback that nobody listens on, nor on the next one, which etcd takes for its peers. This process is given each
/// once: what it was given before may not be listened on yet.
pub fn free_port() -> Result<u16, BoxError> {
    let entropy = Entropy::system();
    let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..PORT_TRIES {
        let port = PORTS.start + 2 * entropy.below(u64::from((PORTS.end - PORTS.start) / 2)) as u16;
        if is_free(port) && is_free(port + 1) && given.insert(port) {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_given_what_another_one_was() {
        let given: Vec<u16> = (0..1000).map(|_| free_port().unwrap()).collect();
        let taken: BTreeSet<u16> = given.iter().flat_map(|port| [*port, port + 1]).collect();
        assert_eq!(taken.len(), 2000);
    }
}
