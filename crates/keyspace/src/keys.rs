//! Names of keys below a prefix (journal protocol §11.1, consumer protocol §1.1).
//!
//! Pure. Items are `P/items/<id>`, members `P/members/<zone>#<suffix>`, assignments
//! `P/assign/<id>#<zone>#<suffix>#<slot>`. `#` sorts below every permitted byte, so the order of keys is the order of the
//! tuples. A key parses into exactly one name and a name prints into exactly one key.

use proto::{Invalid, MemberId};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Bytes of a key component must be greater than this one.
const SEPARATOR: char = '#';

/// Who is assigned what: an item, the member it is assigned to, and the slot. Slot 0 is the primary.
///
/// Ordered as the raw keys are, so slots of one item and member compare as decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssignmentKey {
    /// Name of the item: a journal or a shard.
    pub item: Arc<str>,
    /// The assigned member.
    pub member: MemberId,
    /// Position; 0 is the primary.
    pub slot: u32,
}

impl AssignmentKey {
    /// Parses the part of a key which follows `P/assign/`.
    ///
    /// # Errors
    /// If it is not `item#zone#suffix#slot` with valid parts and a slot in plain decimal.
    pub fn parse(text: &str) -> Result<AssignmentKey, Invalid> {
        let mut parts = text.rsplitn(4, SEPARATOR);
        let (Some(slot), Some(suffix), Some(zone), Some(item)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid::new(format!("assignment key {text:?}; expected item#zone#suffix#slot")));
        };
        check_component(item).map_err(|e| e.within("Item"))?;
        let number: u32 = slot.parse().map_err(|_| bad_slot(slot))?;
        if number.to_string() != slot {
            return Err(bad_slot(slot));
        }
        Ok(AssignmentKey { item: item.into(), member: MemberId::new(zone, suffix)?, slot: number })
    }

    /// A key which sorts before every assignment of `item`, and after those of smaller items.
    pub(crate) fn first_of(item: &str) -> AssignmentKey {
        let empty: Arc<str> = Arc::from("");
        AssignmentKey { item: item.into(), member: MemberId { zone: empty.clone(), suffix: empty }, slot: 0 }
    }

    fn slot_text(&self) -> ([u8; 10], usize) {
        let mut digits = [0; 10];
        let (mut rest, mut at) = (self.slot, digits.len());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return (digits, at);
            }
        }
    }
}

fn bad_slot(slot: &str) -> Invalid {
    Invalid::new(format!("slot {slot:?}; expected a plain decimal number")).within("Slot")
}

impl fmt::Display for AssignmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#{}", self.item, self.member, self.slot)
    }
}

impl Ord for AssignmentKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_name = (&self.item, &self.member).cmp(&(&other.item, &other.member));
        by_name.then_with(|| {
            let ((a, from_a), (b, from_b)) = (self.slot_text(), other.slot_text());
            a[from_a..].cmp(&b[from_b..])
        })
    }
}

impl PartialOrd for AssignmentKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The key space of one cluster or consumer group: a clean absolute path, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// Checks the prefix.
    ///
    /// # Errors
    /// If it is not absolute and clean: no empty element, no `.` or `..`, no slash at the end.
    pub fn parse(prefix: &str) -> Result<KeyPrefix, Invalid> {
        let clean = prefix
            .strip_prefix('/')
            .is_some_and(|path| path.split('/').all(|element| !matches!(element, "" | "." | "..")));
        if !clean {
            let expected =
                "expected an absolute, clean path without a slash at its end, as in /gazette/cluster";
            return Err(Invalid::new(format!("etcd prefix {prefix:?}; {expected}")));
        }
        Ok(KeyPrefix(prefix.into()))
    }

    /// The prefix, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every key of this key space starts with. Not the bare prefix: `/a/b` must not see the keys of `/a/b2`.
    pub fn watched(&self) -> String {
        format!("{}/", self.0)
    }

    /// Key of an item.
    pub fn item(&self, id: &str) -> String {
        format!("{}/items/{id}", self.0)
    }

    /// Key of a member.
    pub fn member(&self, id: &MemberId) -> String {
        format!("{}/members/{id}", self.0)
    }

    /// Key of an assignment.
    pub fn assignment(&self, key: &AssignmentKey) -> String {
        format!("{}/assign/{key}", self.0)
    }

    /// What a raw key below this prefix names.
    ///
    /// # Errors
    /// If it names nothing.
    pub fn classify(&self, key: &[u8]) -> Result<KeyName, Invalid> {
        let text = std::str::from_utf8(key).map_err(|_| Invalid::new("the key is not UTF-8"))?;
        let below = text
            .strip_prefix(self.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| Invalid::new(format!("the key does not start with {}/", self.0)))?;
        if let Some(id) = below.strip_prefix("items/") {
            check_component(id).map_err(|e| e.within("Item"))?;
            Ok(KeyName::Item(id.into()))
        } else if let Some(id) = below.strip_prefix("members/") {
            let (zone, suffix) = id
                .split_once(SEPARATOR)
                .ok_or_else(|| Invalid::new(format!("member key {id:?}; expected zone#suffix")))?;
            Ok(KeyName::Member(MemberId::new(zone, suffix)?))
        } else if let Some(key) = below.strip_prefix("assign/") {
            Ok(KeyName::Assignment(AssignmentKey::parse(key)?))
        } else {
            Err(Invalid::new("the key is below none of items/, members/ and assign/"))
        }
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    /// An item, by its id.
    Item(Arc<str>),
    /// A member.
    Member(MemberId),
    /// An assignment.
    Assignment(AssignmentKey),
}

fn check_component(text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.bytes().any(|b| b <= SEPARATOR as u8) {
        return Err(Invalid::new(format!("name {text:?}; expected bytes above '#', and at least one")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(item: &str, zone: &str, suffix: &str, slot: u32) -> AssignmentKey {
        AssignmentKey { item: item.into(), member: MemberId::new(zone, suffix).unwrap(), slot }
    }

    #[test]
    fn keys_print_and_parse() {
        let prefix = KeyPrefix::parse("/gazette/cluster").unwrap();
        let member = MemberId::new("us-east", "broker-1").unwrap();
        assert_eq!(prefix.item("foo/bar"), "/gazette/cluster/items/foo/bar");
        assert_eq!(prefix.member(&member), "/gazette/cluster/members/us-east#broker-1");
        let assignment = key("foo/bar", "us-east", "broker-1", 2);
        assert_eq!(prefix.assignment(&assignment), "/gazette/cluster/assign/foo/bar#us-east#broker-1#2");
        for (raw, name) in [
            (prefix.item("foo/bar"), KeyName::Item("foo/bar".into())),
            (prefix.member(&member), KeyName::Member(member.clone())),
            (prefix.assignment(&assignment), KeyName::Assignment(assignment.clone())),
        ] {
            assert_eq!(prefix.classify(raw.as_bytes()), Ok(name));
        }
    }

    #[test]
    fn malformed_keys_are_refused() {
        let prefix = KeyPrefix::parse("/p").unwrap();
        for raw in [
            "/p2/items/x",
            "/p/items/",
            "/p/items/a#b",
            "/p/other/x",
            "/p/members/zone",
            "/p/members/zone#abc",
            "/p/assign/x#z#abcd",
            "/p/assign/x#z#abcd#",
            "/p/assign/x#z#abcd#01",
            "/p/assign/x#z#abcd#+1",
            "/p/assign/x#z#abcd#4294967296",
            "/p/assign/#z#abcd#0",
            "/p/assign/x y#z#abcd#0",
        ] {
            assert!(prefix.classify(raw.as_bytes()).is_err(), "{raw}");
        }
        assert!(prefix.classify(b"/p/items/\xff").is_err());
    }

    #[test]
    fn prefixes_must_be_clean() {
        for good in ["/a", "/gazette/cluster"] {
            assert!(KeyPrefix::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "/a/", "/a//b", "/a/../b", "/./a"] {
            assert!(KeyPrefix::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_order_as_their_keys_do(
            a in ("[a-c/]{1,3}", "[a-c]{1,2}", "[a-c]{4,5}", 0u32..120),
            b in ("[a-c/]{1,3}", "[a-c]{1,2}", "[a-c]{4,5}", 0u32..120),
        ) {
            let (a, b) = (key(&a.0, &a.1, &a.2, a.3), key(&b.0, &b.1, &b.2, b.3));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(AssignmentKey::parse(&a.to_string()).unwrap(), a);
        }

        #[test]
        fn any_bytes_classify_without_panic(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let prefix = KeyPrefix::parse("/p").unwrap();
            let mut key = b"/p/assign/".to_vec();
            key.extend(raw);
            let _ = prefix.classify(&key);
        }
    }
}
