//! Faults as protobuf: what the wire can say comes back by it unchanged, what it can't is named by a field that there is.

use crate::fault::{self, has_field};
use prost::Message;
use sabot_proto::convert::{metadata_from_proto, spec_from_proto, spec_to_proto};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::action::Kind;
use sabot_proto::sabot::v1::delay::Base;

/// # Panics
///
/// A fault comes back as another one, or an error names a field that there isn't.
pub fn check(bytes: &[u8]) {
    let Ok(request) = v1::ApplyFaultRequest::decode(bytes) else {
        return;
    };
    let metadata = metadata_from_proto(request.metadata.unwrap_or_default());
    let mut asked = request.spec.unwrap_or_default();
    let spec = match spec_from_proto(asked.clone()) {
        Ok(spec) => spec,
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(has_field(&error.field), "there is no such field: {error}");
                assert!(!error.description.is_empty());
            }
            return;
        }
    };
    let sent = spec_to_proto(&spec).expect("what came by the wire can be sent");
    settle(&mut asked);
    // NaN is unequal to itself.
    assert!(
        sent == asked || format!("{asked:?}").contains("NaN"),
        "{asked:?} became {sent:?}"
    );
    if fault::check(&metadata, &spec).is_some() {
        assert_eq!(spec_from_proto(sent), Ok(spec));
    }
}

/// What is absent and what is empty mean the same here.
fn settle(asked: &mut v1::FaultSpec) {
    asked.target.get_or_insert_default();
    let action = asked.action.get_or_insert_default();
    if let Some(Kind::Delay(delay)) = &mut action.kind {
        delay.base = delay
            .base
            .take_if(|base| !matches!(base, Base::Quantiles(list) if list.values.is_empty()));
    }
}
