//! Moments as events.

use super::*;
use crate::observe::event::EventKind;

/// Change and message of what has happened to the target.
fn news(scene: &mut Scene) -> Vec<(&'static str, String)> {
    let identity = Arc::clone(&scene.owners.get(OWNER).unwrap().identity);
    let events = scene.recorder.news().into_iter();
    let changes = events.map(|event| match event.kind {
        EventKind::Fault(change) => {
            assert_eq!(change.fault, name(FAULT));
            assert_eq!(change.target, Some(Arc::clone(&identity)));
            (change.change, change.message)
        }
        other => panic!("{other:?}"),
    });
    changes.collect()
}

#[test]
fn what_happens_to_a_target_is_news_once() {
    let mut scene = Scene::new();
    scene.follow(Phase::Injected);
    assert_eq!(news(&mut scene), []);
    scene.pass(2);
    let pod = scene.owners.get(OWNER).unwrap().identity.as_ref().clone();
    let reaction = Reaction {
        at: scene.now,
        what: "StopContainer by kubelet: OK".to_owned(),
    };
    scene.recorder.react(&pod, &reaction);
    let told = ("runtimeReaction", reaction.what.clone());
    assert_eq!(news(&mut scene), [told]);
    scene.recorder.react(&pod, &reaction);
    assert_eq!(news(&mut scene), []);
}
