//! The names of calls whose paths were abbreviated before anyone listened.
//!
//! A client that polls says the same few paths again and again, and never spells them out anew: whoever listens later sees
//! the places of some fields, and can't tell which of them is the path. But the same places are the same fields, and so the
//! same path. Once a call with them is known by its shape, all of them are.

use std::collections::HashMap;

use super::hpack::Field;

/// A client has some thirty calls, each with a few timeouts.
const MOST: usize = 1024;

/// The places of a request's fields that aren't known, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unseen(Vec<i64>);

impl Unseen {
    /// `None` where the fields don't tell for certain that it is the same path.
    pub(super) fn of(fields: &[Field]) -> Option<Self> {
        let has_value_alone = |field: &Field| field.name.is_none() && field.value.is_some();
        let places: Vec<i64> = fields.iter().filter_map(|field| field.place).collect();
        (!places.is_empty() && !fields.iter().any(has_value_alone)).then_some(Self(places))
    }
}

/// What was learnt on one connection.
#[derive(Default)]
pub(super) struct Names {
    /// `None`: calls of several shapes had these, so that no shape tells the name.
    operations: HashMap<Unseen, Option<&'static str>>,
}

impl Names {
    pub(super) fn get(&self, unseen: Option<&Unseen>) -> Option<&'static str> {
        self.operations.get(unseen?).copied().flatten()
    }

    /// The operation of a call that has ended; `shape` is the one that only its shape tells of.
    pub(super) fn settle(
        &mut self,
        unseen: Option<&Unseen>,
        shape: Option<&'static str>,
    ) -> Option<&'static str> {
        let (Some(unseen), Some(operation)) = (unseen, shape) else {
            return shape.or_else(|| self.get(unseen));
        };
        if self.operations.len() >= MOST && !self.operations.contains_key(unseen) {
            self.operations.clear();
        }
        let known = self.operations.entry(unseen.clone()).or_insert(shape);
        if *known != shape {
            *known = None;
        }
        Some(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{field, unseen};
    use super::*;

    #[test]
    fn a_name_holds_for_the_same_places_alone() {
        let mut names = Names::default();
        let list = Unseen::of(&[field(":method", "POST"), unseen(-3), unseen(-2)]);
        let status = Unseen::of(&[field(":method", "POST"), unseen(-5), unseen(-2)]);
        assert_eq!(names.settle(list.as_ref(), None), None);
        assert_eq!(
            names.settle(list.as_ref(), Some("ListContainers")),
            Some("ListContainers")
        );
        assert_eq!(names.settle(list.as_ref(), None), Some("ListContainers"));
        assert_eq!(names.get(list.as_ref()), Some("ListContainers"));
        assert_eq!(names.get(status.as_ref()), None);
        assert_eq!(names.get(None), None);
        assert_eq!(names.settle(None, Some("Status")), Some("Status"));
    }

    #[test]
    fn shapes_that_contradict_each_other_name_nothing() {
        let mut names = Names::default();
        let places = Unseen::of(&[unseen(-3)]);
        names.settle(places.as_ref(), Some("Status"));
        assert_eq!(names.settle(places.as_ref(), Some("Version")), Some("Version"));
        assert_eq!(names.settle(places.as_ref(), Some("Version")), Some("Version"));
        assert_eq!(names.get(places.as_ref()), None);
    }

    #[test]
    fn without_certainty_there_are_no_places() {
        assert_eq!(Unseen::of(&[field(":path", "/a")]), None);
        // Its name may be that of the path.
        let half = Field {
            name: None,
            ..field("", "/b")
        };
        assert_eq!(Unseen::of(&[unseen(-1), half]), None);
    }

    #[test]
    fn a_client_without_end_takes_no_memory_without_end() {
        let mut names = Names::default();
        for place in 0..10 * MOST as i64 {
            names.settle(Unseen::of(&[unseen(place)]).as_ref(), Some("Status"));
        }
        assert!(names.operations.len() <= MOST);
    }
}
