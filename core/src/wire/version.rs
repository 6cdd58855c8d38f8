//! Which version of the protocol a connection speaks.
//!
//! Whatever can be added is added under a capability or a feature, and changes no version: who did
//! not ask for it never sees it. A version is for what cannot be added, because a frame that both
//! sides have means or spells something else. Each side says the highest that it speaks, both go on
//! in the lower, and send nothing that is not in that one.
//!
//! | version | what is different |
//! |---|---|
//! | 1 | the dialect and all that Bowline adds to it: what every release speaks |
//! | 2 | reserved. `client_ack` is `{messageId}`, named as the push named it; the id of its sender alone settles nothing |
//!
//! **Nobody speaks version 2 who was not told to.** It is there so that two sides one version apart
//! meet in every simulation long before a release needs it: a step down that was never taken is a
//! step down that does not work.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::{ClientAck, Offer};
use super::decode::id;
use super::feature::{FeatureKind, FeatureMismatch};
use super::{ClientDecodeError, ClientFrame, decode_client, encode_client, plain};
use crate::id::MessageId;

/// The name under which a version that cannot be agreed on is refused.
pub const PROTOCOL_VERSION: &str = "protocol_version";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ProtocolVersion(u32);

impl ProtocolVersion {
    pub const V1: Self = Self(1);
    /// Reserved: see the module.
    pub const V2: Self = Self(2);
    /// The highest that is spoken where nothing else is said.
    pub const SPOKEN: Self = Self::V1;

    /// One that this code can be told to speak.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        [Self::V1, Self::V2]
            .into_iter()
            .find(|version| version.0 == number)
    }

    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// At a broker that speaks up to this: what it goes on in with a client. A plain client's
    /// number is its own dialect's, and means nothing here.
    pub fn towards(self, offer: &Offer) -> Result<Self, FeatureMismatch> {
        if plain::is_plain(&offer.capabilities) {
            return Ok(Self::V1);
        }
        Ok(self.min(said(offer.protocol_version)?))
    }

    /// At a client that speaks up to this: what its broker goes on in.
    pub fn answered(self, answer: Option<u32>) -> Result<Self, FeatureMismatch> {
        let answered = said(answer)?;
        if answered > self {
            let detail = alloc::format!("{} was said, {} answered", self.0, answered.0);
            return Err(mismatch(FeatureKind::ParamInvalid, detail));
        }
        Ok(answered)
    }
}

impl Default for ProtocolVersion {
    fn default() -> Self {
        Self::SPOKEN
    }
}

/// Whoever says nothing speaks the first.
fn said(number: Option<u32>) -> Result<ProtocolVersion, FeatureMismatch> {
    let version = ProtocolVersion(number.unwrap_or(1));
    if version < ProtocolVersion::V1 {
        let detail = alloc::format!("{} is below 1", version.0);
        return Err(mismatch(FeatureKind::ParamBelowFloor, detail));
    }
    Ok(version)
}

fn mismatch(kind: FeatureKind, detail: alloc::string::String) -> FeatureMismatch {
    FeatureMismatch {
        kind,
        feature: PROTOCOL_VERSION.into(),
        detail,
    }
}

/// A frame as it is said on a connection that speaks `version`.
#[must_use]
pub fn encode_client_in(version: ProtocolVersion, frame: &ClientFrame) -> Bytes {
    match frame {
        ClientFrame::ClientAck(ack) if version >= ProtocolVersion::V2 => {
            let ack = ClientAck2 {
                tag: "client_ack",
                message_id: ack.broker_message_id.clone(),
            };
            serde_json::to_vec(&ack).expect("ids are strings").into()
        }
        frame => encode_client(frame),
    }
}

/// A text that came on a connection that speaks `version`.
pub fn decode_client_in(
    version: ProtocolVersion,
    text: &[u8],
) -> Result<ClientFrame, ClientDecodeError> {
    match decode_client(text)? {
        ClientFrame::ClientAck(_) if version >= ProtocolVersion::V2 => client_ack_2(text),
        frame => Ok(frame),
    }
}

fn client_ack_2(text: &[u8]) -> Result<ClientFrame, ClientDecodeError> {
    let read = serde_json::from_slice::<ReadAck2>(text).map_err(|error| alloc::format!("{error}"));
    let checked = read.and_then(|ack| {
        id("messageId", Some(ack.message_id.as_str()))?;
        Ok(ack.message_id)
    });
    match checked {
        Ok(message_id) => Ok(ClientFrame::ClientAck(ClientAck {
            client_message_id: None,
            broker_message_id: Some(message_id),
        })),
        Err(detail) => Err(ClientDecodeError::Bad {
            kind: "client_ack".into(),
            id: None,
            req_id: None,
            detail,
        }),
    }
}

#[derive(Serialize)]
struct ClientAck2 {
    #[serde(rename = "type")]
    tag: &'static str,
    #[serde(rename = "messageId", skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
}

#[derive(Deserialize)]
struct ReadAck2 {
    #[serde(rename = "messageId")]
    message_id: MessageId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::feature::Capabilities;

    const V1: ProtocolVersion = ProtocolVersion::V1;
    const V2: ProtocolVersion = ProtocolVersion::V2;

    fn offer(protocol_version: Option<u32>, capabilities: Capabilities) -> Offer {
        Offer {
            protocol_version,
            capabilities,
            ..Offer::default()
        }
    }

    #[test]
    fn both_sides_go_on_in_the_lower_version() {
        let with =
            |broker: ProtocolVersion, client| broker.towards(&offer(client, Capabilities::ours()));
        assert_eq!(with(V1, Some(1)), Ok(V1));
        assert_eq!(with(V1, Some(2)), Ok(V1));
        assert_eq!(with(V2, Some(1)), Ok(V1));
        assert_eq!(with(V2, Some(2)), Ok(V2));
        assert_eq!(with(V2, Some(9)), Ok(V2));
        assert_eq!(with(V2, None), Ok(V1));
        for highest in [V1, V2] {
            for broker in [V1, V2] {
                let agreed = with(broker, Some(highest.number())).unwrap();
                assert_eq!(highest.answered(Some(agreed.number())), Ok(agreed));
            }
        }
    }

    #[test]
    fn a_version_that_is_none_is_refused_by_whoever_hears_it() {
        let refused = V2
            .towards(&offer(Some(0), Capabilities::ours()))
            .unwrap_err();
        assert_eq!(refused.close().code, 4012);
        assert_eq!(V1.answered(Some(0)).unwrap_err().close().code, 4012);
        let refused = V1.answered(Some(2)).unwrap_err();
        assert_eq!(refused.close().code, 4011, "nobody asked for that one");
        assert_eq!(refused.feature, PROTOCOL_VERSION);
        assert_eq!(V2.answered(None), Ok(V1));
    }

    #[test]
    fn what_a_plain_client_calls_its_version_means_nothing() {
        for said in [None, Some(0), Some(2), Some(u32::MAX)] {
            assert_eq!(V2.towards(&offer(said, Capabilities::default())), Ok(V1));
        }
    }

    #[test]
    fn each_version_spells_an_acknowledgement_its_own_way() {
        let ack = ClientFrame::ClientAck(ClientAck {
            client_message_id: Some("c".into()),
            broker_message_id: Some("m".into()),
        });
        let (in_1, in_2) = (encode_client_in(V1, &ack), encode_client_in(V2, &ack));
        assert_eq!(&in_2[..], br#"{"type":"client_ack","messageId":"m"}"#);
        assert_eq!(decode_client_in(V1, &in_1).as_ref(), Ok(&ack));
        let settles = |decoded| match decoded {
            Ok(ClientFrame::ClientAck(ack)) => ack.broker_message_id,
            _ => None,
        };
        assert_eq!(settles(decode_client_in(V2, &in_2)), Some("m".into()));
        assert_eq!(settles(decode_client_in(V1, &in_2)), None);
        assert_eq!(settles(decode_client_in(V2, &in_1)), None);
        let bye = encode_client_in(V2, &ClientFrame::Bye);
        assert_eq!(decode_client_in(V2, &bye), Ok(ClientFrame::Bye));
    }
}
