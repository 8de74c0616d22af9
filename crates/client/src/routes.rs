//! Which broker a request goes to: routes of journals, remembered for a while, and the choice among their members.

use proto::protocol::Route;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Which member of a route a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The primary: appends.
    Primary,
    /// Any member: reads.
    Any,
}

struct Cached {
    route: Arc<Route>,
    expires: Duration,
    last_use: u64,
}

/// The least recently used routes go when there are too many; all go when they are old. Times count from any start.
pub(crate) struct RouteCache {
    capacity: usize,
    ttl: Duration,
    routes: HashMap<Arc<str>, Cached>,
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

impl RouteCache {
    pub(crate) fn new(capacity: usize, ttl: Duration) -> RouteCache {
        RouteCache { capacity, ttl, routes: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// Remembers what a response said. A route without members says that there is nothing to remember.
    pub(crate) fn update(&mut self, item: &str, route: &Route, now: Duration) {
        let name = self.remove(item).unwrap_or_else(|| item.into());
        if route.members.is_empty() || self.capacity == 0 {
            return;
        }
        if self.routes.len() >= self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.routes.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, Arc::clone(&name));
        let cached = Cached { route: Arc::new(route.clone()), expires: now + self.ttl, last_use: self.uses };
        self.routes.insert(name, cached);
    }

    /// The route of a journal, if it is remembered.
    pub(crate) fn get(&mut self, item: &str, now: Duration) -> Option<Arc<Route>> {
        let cached = self.routes.get_mut(item)?;
        if cached.expires <= now {
            self.remove(item);
            return None;
        }
        self.uses += 1;
        if let Some(name) = self.by_use.remove(&cached.last_use) {
            self.by_use.insert(self.uses, name);
        }
        cached.last_use = self.uses;
        Some(Arc::clone(&cached.route))
    }

    /// Forgets a journal's route, and returns its name.
    pub(crate) fn remove(&mut self, item: &str) -> Option<Arc<str>> {
        let (name, cached) = self.routes.remove_entry(item)?;
        self.by_use.remove(&cached.last_use);
        Some(name)
    }
}

/// The endpoint of the best member: the primary unless it failed lately, as others then know of its successor first; or,
/// of those who will do, one which did not fail lately, then one of this zone, then any. None if no endpoint is known.
pub(crate) fn choose<'r>(
    route: &'r Route,
    need: Need,
    zone: &str,
    failed: impl Fn(&str) -> bool,
    random: u64,
) -> Option<&'r str> {
    if need == Need::Primary {
        return route.primary_endpoint().filter(|endpoint| !failed(endpoint));
    }
    let rank = |(index, endpoint): &(usize, &str)| {
        let spread = index.wrapping_add(random as usize) % route.members.len();
        (failed(endpoint), route.members[*index].zone != zone, spread)
    };
    let members = (0..route.members.len()).filter_map(|index| Some((index, route.endpoint_at(index)?)));
    members.min_by_key(rank).map(|(_, endpoint)| endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::protocol::process_spec::Id;

    const MINUTE: Duration = Duration::from_secs(60);

    fn route(zones: &[&str], primary: i32) -> Route {
        let member =
            |(index, zone): (usize, &&str)| Id { zone: zone.to_string(), suffix: format!("broker-{index}") };
        Route {
            members: zones.iter().enumerate().map(member).collect(),
            primary,
            endpoints: (0..zones.len()).map(|index| format!("http://broker-{index}")).collect(),
        }
    }

    #[test]
    fn the_least_recently_used_route_is_forgotten_first() {
        let mut cache = RouteCache::new(2, MINUTE);
        let now = Duration::ZERO;
        cache.update("a/one", &route(&["z"], 0), now);
        cache.update("a/two", &route(&["z"], 0), now);
        assert!(cache.get("a/one", now).is_some());
        cache.update("a/three", &route(&["z"], 0), now);
        assert!(cache.get("a/two", now).is_none());
        assert!(cache.get("a/one", now).is_some() && cache.get("a/three", now).is_some());
        assert_eq!((cache.routes.len(), cache.by_use.len()), (2, 2));
    }

    #[test]
    fn routes_expire_and_empty_ones_evict() {
        let mut cache = RouteCache::new(2, MINUTE);
        cache.update("a/one", &route(&["z"], 0), Duration::ZERO);
        assert!(cache.get("a/one", MINUTE - Duration::from_nanos(1)).is_some());
        assert!(cache.get("a/one", MINUTE).is_none());
        cache.update("a/one", &route(&["z"], 0), MINUTE);
        cache.update("a/one", &Route::unrouted(), MINUTE);
        assert!(cache.get("a/one", MINUTE).is_none());
        assert!(cache.by_use.is_empty());
    }

    #[test]
    fn the_best_member_works_and_is_near() {
        let healthy = |_: &str| false;
        let three = route(&["a", "b", "b"], 0);
        assert_eq!(choose(&three, Need::Primary, "b", healthy, 0), Some("http://broker-0"));
        assert_eq!(choose(&three, Need::Primary, "b", |endpoint| endpoint == "http://broker-0", 0), None);
        for random in 0..9 {
            let near = choose(&three, Need::Any, "b", healthy, random);
            assert!(matches!(near, Some("http://broker-1" | "http://broker-2")), "{near:?}");
            let working = choose(&three, Need::Any, "b", |endpoint| endpoint != "http://broker-0", random);
            assert_eq!(working, Some("http://broker-0"));
        }
        let spread: std::collections::BTreeSet<_> =
            (0..9).map(|random| choose(&three, Need::Any, "c", healthy, random)).collect();
        assert_eq!(spread.len(), 3);
        assert_eq!(choose(&route(&["a"], -1), Need::Primary, "a", healthy, 0), None);
        let unknown = Route { endpoints: vec![String::new()], ..route(&["a"], 0) };
        assert_eq!(choose(&unknown, Need::Any, "a", healthy, 0), None);
    }
}
