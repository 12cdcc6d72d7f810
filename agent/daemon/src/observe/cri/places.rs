//! Which pod a sandbox and a container belong to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::operations::Subject;
use crate::observe::identity::containers::{Container, Containers};

/// Sandboxes and containers that are remembered, of each; the oldest are forgotten first.
const MOST: usize = 8192;

/// Namespace and name.
pub type PodName = (String, String);

/// Pods that somebody else knows, by the id of their sandbox.
pub type Sandboxes = Box<dyn Fn(&str) -> Option<PodName> + Send + Sync>;

/// What others know.
pub struct Known {
    sandboxes: Sandboxes,
    containers: Containers,
}

impl Known {
    /// Without names of containers, but for those that are learnt here.
    pub fn new(sandboxes: Sandboxes) -> Self {
        Self {
            sandboxes,
            containers: Containers::default(),
        }
    }

    pub fn with_containers(self, containers: Containers) -> Self {
        Self { containers, ..self }
    }

    /// Tells of a container whose name was said.
    pub(super) fn learn(&self, subject: &Subject) {
        self.containers
            .learn(&subject.container, &subject.container_name, &subject.sandbox);
    }

    /// The container that it is about, with the pod that it names; `None` without a name for it.
    pub(super) fn container(&self, subject: &Subject) -> Option<Arc<Container>> {
        let named = (!subject.container_name.is_empty()).then(|| {
            Arc::new(Container {
                id: subject.container.clone(),
                name: subject.container_name.clone(),
                ..Container::default()
            })
        });
        let container = named.or_else(|| self.containers.of_id(&subject.container))?;
        let Some((namespace, name)) = &subject.pod else {
            return Some(container);
        };
        Some(Arc::new(Container {
            pod_namespace: namespace.clone(),
            pod_name: name.clone(),
            ..Container::clone(&container)
        }))
    }
}

/// What the calls themselves said.
#[derive(Default)]
pub(super) struct Places {
    pods: Memory<PodName>,
    /// Sandboxes of containers.
    sandboxes: Memory<String>,
}

impl Places {
    /// Completes what a call is about; what is older than the observer, others know.
    pub(super) fn complete(&self, subject: &mut Subject, known: &Known) {
        if subject.sandbox.is_empty() {
            let sandbox = self.sandboxes.get(&subject.container).cloned();
            subject.sandbox = sandbox
                .or_else(|| known.containers.sandbox(&subject.container))
                .unwrap_or_default();
        }
        if subject.pod.is_none() && !subject.sandbox.is_empty() {
            subject.pod = self
                .pods
                .get(&subject.sandbox)
                .cloned()
                .or_else(|| (known.sandboxes)(&subject.sandbox));
        }
    }

    /// Learns from a call that succeeded.
    pub(super) fn learn(&mut self, operation: &str, subject: &Subject) {
        match operation {
            "RemovePodSandbox" => self.pods.forget(&subject.sandbox),
            "RemoveContainer" => self.sandboxes.forget(&subject.container),
            _ => {
                if let Some(pod) = &subject.pod {
                    self.pods.learn(&subject.sandbox, pod.clone());
                }
                if !subject.sandbox.is_empty() {
                    self.sandboxes.learn(&subject.container, subject.sandbox.clone());
                }
            }
        }
    }
}

/// By id; an id may be abbreviated where it is asked for.
struct Memory<T> {
    entries: BTreeMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Memory<T> {
    fn get(&self, id: &str) -> Option<&T> {
        if id.is_empty() {
            return None;
        }
        let mut found = self
            .entries
            .range::<str, _>((Bound::Included(id), Bound::Unbounded))
            .take_while(|(known, _)| known.starts_with(id));
        let (known, value) = found.next()?;
        // An abbreviation that several ids have says nothing.
        (known == id || found.next().is_none()).then_some(value)
    }

    fn learn(&mut self, id: &str, value: T) {
        if id.is_empty() {
            return;
        }
        if self.entries.insert(id.to_owned(), value).is_none() {
            self.order.push_back(id.to_owned());
        }
        while self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    fn forget(&mut self, id: &str) {
        if self.entries.remove(id).is_some() {
            self.order.retain(|known| known != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::observe::identity::containers;

    fn web() -> PodName {
        ("team-a".to_owned(), "web".to_owned())
    }

    fn db() -> PodName {
        ("team-b".to_owned(), "db".to_owned())
    }

    fn subject(sandbox: &str, container: &str, pod: Option<PodName>) -> Subject {
        Subject {
            sandbox: sandbox.to_owned(),
            container: container.to_owned(),
            pod,
            ..Subject::default()
        }
    }

    fn completed(places: &Places, sandbox: &str, container: &str) -> Subject {
        let (_sender, listed) = watch::channel(Arc::default());
        let containers = containers::start(listed, Box::new(|_| None), || ());
        containers.learn("old-c", "main", "old");
        let known = Known::new(Box::new(|id| (id == "old").then(db))).with_containers(containers);
        let mut subject = subject(sandbox, container, None);
        places.complete(&mut subject, &known);
        subject
    }

    #[tokio::test]
    async fn a_container_leads_to_its_pod_until_it_is_removed() {
        let mut places = Places::default();
        places.learn("RunPodSandbox", &subject("s1", "", Some(web())));
        places.learn("CreateContainer", &subject("s1", "c1", None));
        assert_eq!(completed(&places, "", "c1"), subject("s1", "c1", Some(web())));
        assert_eq!(completed(&places, "s1", ""), subject("s1", "", Some(web())));
        places.learn("RemoveContainer", &subject("s1", "c1", Some(web())));
        assert_eq!(completed(&places, "", "c1"), subject("", "c1", None));
        places.learn("RemovePodSandbox", &subject("s1", "", Some(web())));
        assert_eq!(completed(&places, "s1", "").pod, None);
        assert!(places.pods.order.is_empty() && places.sandboxes.order.is_empty());
    }

    #[tokio::test]
    async fn what_was_there_before_is_asked_of_others() {
        let places = Places::default();
        assert_eq!(completed(&places, "old", "").pod, Some(db()));
        assert_eq!(
            completed(&places, "", "old-c"),
            subject("old", "old-c", Some(db()))
        );
        assert_eq!(completed(&places, "", "unheard"), subject("", "unheard", None));
    }

    #[test]
    fn an_abbreviation_means_the_only_one_that_has_it() {
        let mut memory = Memory::default();
        for id in ["ab1", "ab2", "cd"] {
            memory.learn(id, id.to_owned());
        }
        assert_eq!(memory.get("c").map(String::as_str), Some("cd"));
        assert_eq!(memory.get("ab2").map(String::as_str), Some("ab2"));
        assert_eq!((memory.get("ab"), memory.get("")), (None, None));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut memory = Memory::default();
        for number in 0..MOST + 10 {
            memory.learn(&format!("{number:06}"), number);
        }
        assert_eq!((memory.entries.len(), memory.order.len()), (MOST, MOST));
        assert_eq!(memory.get("000009"), None);
        assert!(memory.get("000010").is_some());
    }
}
