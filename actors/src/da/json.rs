//! How Celestia's JSON-RPC writes things (wire sections 5.2 and 5.3), as typed structs.
//!
//! Decoding is lenient where the servers differ: keys in either case, numbers as strings,
//! `null` for an empty list, unknown keys. Encoding is exactly what ev-node sends.

use baton_messages::da::{Blob, DaHead, Namespace, blob_commitment};
use baton_messages::types::{DaHeight, Hash, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_with::base64::Base64;
use serde_with::{DisplayFromStr, PickFirst, serde_as};

/// Whether a text can be a JSON object. serde also takes the fields of a struct from an array.
#[must_use]
pub fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

/// A namespace: base64 of its 29 bytes.
#[serde_as]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespaceJson(#[serde_as(as = "Base64")] pub [u8; 29]);

impl From<Namespace> for NamespaceJson {
    fn from(namespace: Namespace) -> Self {
        Self(namespace.0)
    }
}

/// A blob commitment: base64 of its 32 bytes.
#[serde_as]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitmentJson(#[serde_as(as = "Base64")] pub [u8; 32]);

impl From<Hash> for CommitmentJson {
    fn from(commitment: Hash) -> Self {
        Self(commitment.0)
    }
}

/// A blob.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobJson {
    /// Where.
    #[serde(alias = "Namespace")]
    pub namespace: NamespaceJson,
    /// What; Go writes an empty slice as `null`.
    #[serde_as(as = "Option<Base64>")]
    #[serde(default, alias = "Data")]
    pub data: Option<Vec<u8>>,
    /// 0, or 1 for a blob that names its signer.
    #[serde(default, alias = "ShareVersion")]
    pub share_version: u8,
    /// The commitment to the data (wire section 5.4).
    #[serde(default, alias = "Commitment")]
    pub commitment: Option<CommitmentJson>,
    /// The index of its first share in the block; -1 on submit.
    #[serde(default = "no_index", alias = "Index")]
    pub index: i64,
    /// The signer of a version-1 blob. Left out otherwise: ev-node refuses an empty one.
    #[serde_as(as = "Option<Base64>")]
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "Signer")]
    pub signer: Option<Vec<u8>>,
}

const fn no_index() -> i64 {
    -1
}

impl From<&Blob> for BlobJson {
    fn from(blob: &Blob) -> Self {
        Self {
            namespace: blob.namespace.into(),
            data: Some(blob.data.to_vec()),
            share_version: 0,
            commitment: Some(blob_commitment(&blob.namespace, &blob.data).into()),
            index: no_index(),
            signer: None,
        }
    }
}

/// Blobs to submit, encoded one after the other.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionJson<'a>(pub &'a [Blob]);

impl Serialize for SubmissionJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(BlobJson::from))
    }
}

impl BlobJson {
    /// The blob, unless it is empty (which no DA layer stores).
    #[must_use]
    pub fn into_blob(self) -> Option<Blob> {
        let data = self.data.filter(|data| !data.is_empty())?;
        Some(Blob { namespace: Namespace(self.namespace.0), data: Bytes::from(data) })
    }
}

/// A DA block header, as far as it is of use here. Servers put the height in up to three
/// places, as a number or a string (wire section 5.2); any of them will do.
#[serde_as]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HeaderJson {
    #[serde(default, alias = "Header")]
    header: Option<InnerHeaderJson>,
    #[serde(default, alias = "Commit")]
    commit: Option<CommitJson>,
    #[serde_as(as = "Option<PickFirst<(_, DisplayFromStr)>>")]
    #[serde(default, alias = "Height")]
    height: Option<u64>,
    #[serde(default, alias = "Time")]
    time: Option<jiff::Timestamp>,
}

#[serde_as]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct InnerHeaderJson {
    #[serde_as(as = "Option<PickFirst<(_, DisplayFromStr)>>")]
    #[serde(default, alias = "Height")]
    height: Option<u64>,
    #[serde(default, alias = "Time")]
    time: Option<jiff::Timestamp>,
}

#[serde_as]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct CommitJson {
    #[serde_as(as = "Option<PickFirst<(_, DisplayFromStr)>>")]
    #[serde(default, alias = "Height")]
    height: Option<u64>,
}

impl HeaderJson {
    /// The height and the time: the nested ones unless they are zero, then the others.
    /// A header that names no time has time zero.
    #[must_use]
    pub fn head(&self) -> DaHead {
        let inner = self.header.clone().unwrap_or_default();
        let commit = self.commit.as_ref().and_then(|commit| commit.height);
        let heights = [inner.height, self.height, commit];
        let height = heights.into_iter().flatten().find(|height| *height != 0).unwrap_or(0);
        let times = [inner.time, self.time];
        let time = times.into_iter().flatten().find_map(nanoseconds).unwrap_or_default();
        DaHead { height: DaHeight(height), time }
    }
}

/// A time after 1970; Go's zero time is in the year 1.
fn nanoseconds(time: jiff::Timestamp) -> Option<Timestamp> {
    i64::try_from(time.as_nanosecond())
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .filter(|nanos| *nanos != 0)
        .map(Timestamp)
}

/// What a subscription says about each DA block. celestia-node writes the keys capitalised.
#[derive(Clone, Debug, Deserialize)]
pub struct SubscriptionJson {
    /// The blobs of the namespace; `null` when there are none.
    #[serde(default, alias = "Blobs")]
    pub blobs: Option<Vec<BlobJson>>,
    /// The height of the block.
    #[serde(alias = "Height")]
    pub height: u64,
    /// The header, when the server sends it.
    #[serde(default, alias = "Header")]
    pub header: Option<HeaderJson>,
}

/// The second parameter of `blob.Submit`. What is zero is left out.
///
/// It reads the value of ev-node's `da.submit_options`; unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitOptions {
    /// The price per gas, in utia; only honoured together with `is_gas_price_set`.
    #[serde(skip_serializing_if = "is_zero")]
    pub gas_price: f64,
    /// Whether `gas_price` is meant.
    #[serde(skip_serializing_if = "is_false")]
    pub is_gas_price_set: bool,
    /// The highest estimated price per gas to accept, in utia.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_gas_price: f64,
    /// The gas limit; 0 lets the node estimate it.
    #[serde(skip_serializing_if = "is_none_gas")]
    pub gas: u64,
    /// 1 low, 2 medium, 3 high; 0 leaves it to the node.
    #[serde(skip_serializing_if = "is_no_priority")]
    pub tx_priority: i64,
    /// The name of the key in the DA node's keyring.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_name: String,
    /// The account that signs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signer_address: String,
    /// The account that pays.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fee_granter_address: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_none_gas(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_no_priority(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(json: &str) -> DaHead {
        serde_json::from_str::<HeaderJson>(json).unwrap().head()
    }

    #[test]
    fn a_header_of_local_da_has_its_height_at_the_top_as_a_string() {
        let json = r#"{"header":{"chain_id":"","height":0,"time":"0001-01-01T00:00:00Z"},"commit":{"height":0},
            "dah":{"row_roots":null,"column_roots":null},"height":"7","chain_id":"local-da",
            "time":"2025-01-02T03:04:05.000000006Z"}"#;
        let time = Timestamp(1_735_787_045_000_000_006);
        assert_eq!(head(json), DaHead { height: DaHeight(7), time });
    }

    #[test]
    fn a_header_of_celestia_has_its_height_nested_as_a_string() {
        let json = r#"{"header":{"chain_id":"mocha-4","height":"8000000","time":"2025-01-02T03:04:05Z"},
            "commit":{"height":"8000000"},"dah":{"row_roots":["AA=="],"column_roots":["AA=="]},"validator_set":{}}"#;
        let time = Timestamp(1_735_787_045_000_000_000);
        assert_eq!(head(json), DaHead { height: DaHeight(8_000_000), time });
    }

    #[test]
    fn a_header_of_ev_node_has_its_heights_nested_as_numbers() {
        assert_eq!(head(r#"{"header":{"height":9,"time":"1970-01-01T00:00:01Z"}}"#).height, DaHeight(9));
        assert_eq!(head(r#"{"commit":{"height":10}}"#).height, DaHeight(10));
        assert_eq!(head(r#"{"Height":11}"#).height, DaHeight(11));
        assert_eq!(head("{}"), DaHead::default());
    }

    #[test]
    fn a_blob_is_written_as_ev_node_writes_it() {
        let namespace = Namespace([0; 29]);
        let blob = Blob { namespace, data: Bytes::from_static(b"hello") };
        let commitment =
            serde_json::to_value(CommitmentJson::from(blob_commitment(&namespace, b"hello"))).unwrap();
        let expected = serde_json::json!({
            "namespace": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "data": "aGVsbG8=",
            "share_version": 0,
            "commitment": commitment,
            "index": -1,
        });
        assert_eq!(serde_json::to_value(BlobJson::from(&blob)).unwrap(), expected);
    }

    #[test]
    fn an_event_of_celestia_has_capitalised_keys() {
        let json = r#"{"Blobs":[{"namespace":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","data":"AQ==","share_version":0,
            "commitment":null,"index":4,"signer":null}],"Height":12,"Header":{"height":12}}"#;
        let event: SubscriptionJson = serde_json::from_str(json).unwrap();
        assert_eq!(event.height, 12);
        assert_eq!(event.header.unwrap().head().height, DaHeight(12));
        assert_eq!(event.blobs.unwrap().remove(0).into_blob().unwrap().data.as_ref(), [1]);
        let empty: SubscriptionJson = serde_json::from_str(r#"{"blobs":null,"height":13}"#).unwrap();
        assert!(empty.blobs.is_none() && empty.header.is_none());
    }

    #[test]
    fn submit_options_leave_out_what_is_not_set() {
        assert_eq!(serde_json::to_string(&SubmitOptions::default()).unwrap(), "{}");
        let json = r#"{"gas_price":0.002,"is_gas_price_set":true,"tx_priority":2,"key_name":"da"}"#;
        let options: SubmitOptions = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&options).unwrap(), json);
        assert!(serde_json::from_str::<SubmitOptions>(r#"{"gas_prise":1}"#).is_err());
    }
}
