//! The brokers which a client may turn to with requests that any broker serves: those it was told of, and those which
//! routes have named. Only the first matter while they work.

use proto::protocol::Route;
use std::sync::Arc;

/// Brokers remembered from routes.
const LEARNED_MAX: usize = 16;

/// Endpoints of brokers.
pub(crate) struct Brokers {
    configured: Vec<Arc<str>>,
    /// The latest last.
    learned: Vec<Arc<str>>,
}

impl Brokers {
    /// The brokers of a list which is separated by commas.
    pub(crate) fn new(addresses: &str) -> Brokers {
        let configured = addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
        let mut configured: Vec<Arc<str>> = configured.map(Arc::from).collect();
        if configured.is_empty() {
            // It cannot be dialled, which says what is missing.
            configured.push("".into());
        }
        Brokers { configured, learned: Vec::new() }
    }

    /// Those which the client was told of. There is at least one.
    pub(crate) fn configured(&self) -> &[Arc<str>] {
        &self.configured
    }

    /// Learns the brokers of a route.
    pub(crate) fn learn(&mut self, route: &Route) {
        for endpoint in route.endpoints.iter().filter(|endpoint| !endpoint.is_empty()) {
            let is_known = |known: &Arc<str>| **known == **endpoint;
            if self.configured.iter().any(is_known) || self.learned.iter().any(is_known) {
                continue;
            }
            if self.learned.len() == LEARNED_MAX {
                self.learned.remove(0);
            }
            self.learned.push(endpoint.as_str().into());
        }
    }

    /// Forgets a broker which failed, unless the client was told of it.
    pub(crate) fn forget(&mut self, endpoint: &str) {
        self.learned.retain(|known| **known != *endpoint);
    }

    /// The first which did not fail; else the one whose failure is the oldest. `failed` says when a broker failed, if it
    /// did lately.
    pub(crate) fn choose<T: Ord>(&self, failed: impl Fn(&str) -> Option<T>) -> Arc<str> {
        let known = self.configured.iter().chain(self.learned.iter().rev());
        let best = known.min_by_key(|endpoint| failed(endpoint));
        Arc::clone(best.unwrap_or(&self.configured[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(endpoints: &[&str]) -> Route {
        Route {
            endpoints: endpoints.iter().map(|endpoint| endpoint.to_string()).collect(),
            ..Route::unrouted()
        }
    }

    /// Chooses while these brokers, the oldest failure first, have failed.
    fn choice(brokers: &Brokers, failed: &[&str]) -> String {
        brokers.choose(|endpoint| failed.iter().position(|failed| *failed == endpoint)).to_string()
    }

    #[test]
    fn those_which_were_configured_come_first_and_the_oldest_failure_last() {
        let mut brokers = Brokers::new("http://a, http://b,");
        assert_eq!(brokers.configured(), ["http://a".into(), "http://b".into()] as [Arc<str>; 2]);
        assert_eq!(choice(&brokers, &[]), "http://a");
        assert_eq!(choice(&brokers, &["http://a"]), "http://b");
        assert_eq!(choice(&brokers, &["http://b", "http://a"]), "http://b");
        brokers.learn(&route(&["http://b", "", "http://c", "http://d"]));
        assert_eq!(choice(&brokers, &["http://a", "http://b"]), "http://d");
        assert_eq!(choice(&brokers, &["http://b", "http://a", "http://d"]), "http://c");
        brokers.forget("http://c");
        brokers.forget("http://a");
        assert_eq!(choice(&brokers, &["http://b", "http://a", "http://d"]), "http://b");
    }

    #[test]
    fn few_are_remembered() {
        let mut brokers = Brokers::new("");
        assert_eq!(choice(&brokers, &[]), "");
        for number in 0..50 {
            brokers.learn(&route(&[&format!("http://{number}")]));
        }
        assert_eq!(brokers.learned.len(), LEARNED_MAX);
        assert_eq!(choice(&brokers, &[""]), "http://49");
    }
}
