//! What the simulated API server keeps: objects by their place, one version number for all of them, and a bounded history for
//! watches.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Group and plural, such as `apps/deployments`; `/pods` in the core group.
    pub resource: String,
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    pub name: String,
}

impl Place {
    /// Where an object of the whole cluster is kept.
    pub fn global(resource: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: String::new(), name: name.to_owned() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// A change, as watches see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub version: u64,
    pub kind: Kind,
    pub place: Place,
    pub object: Value,
}

/// The version a watch asked for is not in the history any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

#[derive(Debug, Clone)]
pub struct Store {
    version: u64,
    objects: BTreeMap<Place, Value>,
    history: VecDeque<Change>,
    /// How many changes are kept.
    kept: usize,
    /// Watches from before this version are told to begin anew.
    oldest: u64,
}

impl Store {
    pub fn new(kept: usize) -> Self {
        // A real server's counter is etcd's: it never starts at nothing.
        Self { version: 100, objects: BTreeMap::new(), history: VecDeque::new(), kept, oldest: 100 }
    }

    /// A store with these objects, whose history was not kept.
    pub fn restore(version: u64, objects: Vec<(Place, Value)>, kept: usize) -> Self {
        let objects = objects.into_iter().collect();
        Self { version, objects, history: VecDeque::new(), kept, oldest: version }
    }

    pub fn objects(&self) -> impl Iterator<Item = (&Place, &Value)> {
        self.objects.iter()
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, place: &Place) -> Option<&Value> {
        self.objects.get(place)
    }

    /// The objects of a resource, in one namespace or (empty) in all.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Place, &'a Value)> {
        let from = Place { resource: resource.into(), namespace: namespace.into(), name: String::new() };
        self.objects.range(from..).take_while(move |(place, _)| {
            place.resource == resource && (namespace.is_empty() || place.namespace == namespace)
        })
    }

    /// The objects of a resource in one namespace whose names begin as this place's does.
    pub fn named<'a>(&'a self, like: &'a Place) -> impl Iterator<Item = (&'a Place, &'a Value)> {
        self.objects.range(like.clone()..).take_while(move |(place, _)| {
            place.resource == like.resource
                && place.namespace == like.namespace
                && place.name.starts_with(&like.name)
        })
    }

    /// All objects of a namespace.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Place, &'a Value)> {
        self.objects.iter().filter(move |(place, _)| place.namespace == namespace)
    }

    /// Puts the object there with a new version, and returns it as it is kept.
    pub fn put(&mut self, place: Place, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = Value::from(self.version.to_string());
        let kind = if self.objects.contains_key(&place) { Kind::Modified } else { Kind::Added };
        self.objects.insert(place.clone(), object.clone());
        self.remember(kind, place, object.clone());
        object
    }

    /// Takes the object away, and returns it as it was last.
    pub fn remove(&mut self, place: &Place) -> Option<Value> {
        let mut object = self.objects.remove(place)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = Value::from(self.version.to_string());
        self.remember(Kind::Deleted, place.clone(), object.clone());
        Some(object)
    }

    fn remember(&mut self, kind: Kind, place: Place, object: Value) {
        self.history.push_back(Change { version: self.version, kind, place, object });
        while self.history.len() > self.kept {
            if let Some(gone) = self.history.pop_front() {
                self.oldest = gone.version;
            }
        }
    }

    /// Forgets the history: every watch has to begin anew.
    pub fn compact(&mut self) {
        self.history.clear();
        self.oldest = self.version;
    }

    /// What changed after this version.
    pub fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, TooOld> {
        if version < self.oldest {
            return Err(TooOld { asked: version, oldest: self.oldest });
        }
        let seen = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(seen..))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(namespace: &str, name: &str) -> Place {
        Place { resource: "/pods".into(), namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_watch_sees_every_change_once_and_is_told_when_it_is_too_late() {
        let mut store = Store::new(3);
        let start = store.version();
        store.put(place("a", "one"), json!({}));
        store.put(place("a", "one"), json!({"x": 1}));
        store.remove(&place("a", "one"));
        let kinds: Vec<Kind> = store.since(start).unwrap().map(|change| change.kind).collect();
        assert_eq!(kinds, [Kind::Added, Kind::Modified, Kind::Deleted]);
        assert_eq!(store.since(store.version()).unwrap().count(), 0);
        store.put(place("b", "two"), json!({}));
        assert_eq!(store.since(start).err(), Some(TooOld { asked: start, oldest: start + 1 }));
        store.compact();
        assert!(store.since(start + 3).is_err() && store.since(store.version()).is_ok());
    }

    #[test]
    fn a_list_is_of_one_resource_in_one_namespace_or_in_all() {
        let mut store = Store::new(10);
        for (namespace, name) in [("a", "one"), ("a", "two"), ("b", "three")] {
            store.put(place(namespace, name), json!({}));
        }
        store.put(Place { resource: "/secrets".into(), ..place("a", "x") }, json!({}));
        let names = |namespace| -> Vec<String> {
            store.list("/pods", namespace).map(|(place, _)| place.name.clone()).collect()
        };
        assert_eq!(names("a"), ["one", "two"]);
        assert_eq!(names(""), ["one", "two", "three"]);
        assert_eq!(store.in_namespace("a").count(), 3);
        let like = |name| store.named(&place("a", name)).count();
        assert_eq!((like("t"), like("two"), like(""), like("three")), (1, 1, 2, 0));
    }
}
