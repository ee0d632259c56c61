//! JSON-RPC 2.0 as go-jsonrpc speaks it (wire sections 5.1 and 5.3), without any transport.

use baton_messages::da::DaError;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::da::json::is_object;

/// What the server said instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RpcError {
    /// 1 for what the application says, otherwise a code of the JSON-RPC library.
    #[serde(default)]
    pub code: i64,
    /// The words.
    #[serde(default)]
    pub message: String,
}

/// Writes a request. Parameters are positional.
///
/// # Errors
///
/// Only what cannot be written as JSON, such as a price that is not a number.
pub fn request(id: u64, method: &str, params: &impl Serialize) -> Result<String, DaError> {
    #[derive(Serialize)]
    struct Request<'a, P> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_string(&Request { jsonrpc: "2.0", id, method, params })
        .map_err(|error| DaError::Other(format!("cannot write the parameters of {method}: {error}")))
}

/// Reads the response to a call of `method`. A missing result reads as `null`.
///
/// # Errors
///
/// What the server says, classified, or that it is not a response.
pub fn response<T: DeserializeOwned>(method: &str, text: &[u8]) -> Result<T, DaError> {
    #[derive(Deserialize)]
    struct Failure {
        #[serde(default)]
        error: Option<RpcError>,
        #[serde(default)]
        #[allow(dead_code, reason = "only checks that it is a response")]
        result: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Success<T> {
        result: T,
    }
    let unreadable = |error| DaError::Other(format!("cannot read the answer to {method}: {error}"));
    if !is_object(text) {
        return Err(DaError::Other(format!("the answer to {method} is not JSON-RPC")));
    }
    let failure: Failure = serde_json::from_slice(text).map_err(unreadable)?;
    if let Some(error) = failure.error {
        return Err(classify(&error));
    }
    if failure.result.is_none() {
        return serde_json::from_str("null").map_err(unreadable);
    }
    serde_json::from_slice::<Success<T>>(text).map(|success| success.result).map_err(unreadable)
}

/// What a blob that is not there is called.
pub const NOT_FOUND: &str = "blob: not found";

/// Whether the DA layer only says that there is nothing.
#[must_use]
pub fn is_not_found(error: &DaError) -> bool {
    matches!(error, DaError::Other(message) if message.contains(NOT_FOUND))
}

/// Tells errors apart by their words, as ev-node does: codes do not.
#[must_use]
pub fn classify(error: &RpcError) -> DaError {
    type Kind = fn(String) -> DaError;
    const KINDS: [(&str, Kind); 6] = [
        ("given height is from the future", DaError::FromTheFuture),
        ("blob: over size limit", DaError::TooBig),
        ("timed out waiting for tx to be included in a block", DaError::NotIncluded),
        ("tx already in mempool", DaError::AlreadyInMempool),
        ("incorrect account sequence", DaError::AccountSequence),
        ("context deadline", DaError::Unavailable),
    ];
    let message = shorten(&error.message);
    match KINDS.iter().find(|(words, _)| error.message.contains(words)) {
        Some((_, kind)) => kind(message),
        None if error.code == 1 => DaError::Other(message),
        None => DaError::Other(format!("{message} (code {})", error.code)),
    }
}

/// The part of somebody else's text that goes into a log line.
#[must_use]
pub fn shorten(text: &str) -> String {
    const MOST: usize = 512;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> DaError {
        classify(&RpcError { code: 1, message: message.to_owned() })
    }

    #[test]
    fn errors_are_told_apart_by_a_part_of_their_text() {
        let reasons = [
            ("header: given height is from the future: 9 > 8", "from_the_future"),
            ("rpc: blob: over size limit", "too_big"),
            ("timed out waiting for tx to be included in a block", "not_included_in_block"),
            ("broadcast: tx already in mempool: hash", "already_in_mempool"),
            ("incorrect account sequence, expected 5", "account_sequence"),
            ("context deadline exceeded", "timeout"),
            ("blob: not found", "unknown"),
            ("insufficient fees", "unknown"),
        ];
        for (message, reason) in reasons {
            let error = said(message);
            assert_eq!(error.reason(), reason, "{message}");
            assert!(error.to_string().contains(message));
        }
    }

    #[test]
    fn only_the_words_for_nothing_there_mean_nothing_there() {
        assert!(is_not_found(&said("blob: not found")));
        assert!(!is_not_found(&said("key: not found")));
        assert!(!is_not_found(&said("given height is from the future")));
    }

    #[test]
    fn a_response_is_a_result_or_an_error() {
        assert_eq!(response::<u64>("m", br#"{"id":1,"jsonrpc":"2.0","result":7}"#), Ok(7));
        assert_eq!(response::<Option<u64>>("m", br#"{"id":1,"jsonrpc":"2.0","result":null}"#), Ok(None));
        assert_eq!(response::<Option<u64>>("m", br#"{"id":1,"jsonrpc":"2.0"}"#), Ok(None));
        let error = br#"{"id":1,"jsonrpc":"2.0","error":{"code":-32601,"message":"method 'm' not found"}}"#;
        assert_eq!(
            response::<u64>("m", error),
            Err(DaError::Other("method 'm' not found (code -32601)".into()))
        );
        for garbage in ["", "[]", "7", "{\"result\":\"x\"}", "<html>", "{\"result\":null}"] {
            assert!(response::<u64>("m", garbage.as_bytes()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_request_has_positional_parameters_and_a_number_as_id() {
        let text = request(3, "blob.GetAll", &(7, ["a"])).unwrap();
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":3,"method":"blob.GetAll","params":[7,["a"]]}"#);
        let text = request(4, "header.NetworkHead", &[(); 0]).unwrap();
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":4,"method":"header.NetworkHead","params":[]}"#);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("ä"), "ä");
        assert_eq!(shorten(&"ä".repeat(600)).chars().count(), 513);
    }
}
