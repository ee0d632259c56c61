//! JSON-RPC as go-jsonrpc answers it (wire section 5.1), without any transport.

use baton_actors::da::json::{NamespaceJson, is_object};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

/// An answer that is no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RpcError {
    /// 1 for what the DA layer says, negative for what the protocol says.
    pub code: i32,
    /// The words; clients tell errors apart by them.
    pub message: String,
}

impl RpcError {
    /// The DA layer refuses.
    pub fn application(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// It is not JSON, or a parameter is of another type.
    pub fn parse(message: impl Into<String>) -> Self {
        Self { code: -32700, message: message.into() }
    }

    /// It is JSON, but not a request.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self { code: -32600, message: message.into() }
    }

    /// Nobody offers the method here.
    pub fn method_not_found(method: &str) -> Self {
        Self { code: -32601, message: format!("method '{}' not found", shorten(method)) }
    }

    fn wrong_count(expected: usize, found: usize) -> Self {
        Self { code: -32602, message: format!("wrong param count: expected {expected}, got {found}") }
    }

    /// The HTTP status that goes with it.
    pub const fn status(&self) -> u16 {
        match self.code {
            1 => 200,
            -32600 => 400,
            _ => 500,
        }
    }
}

/// A request whose parameters are still unread.
#[derive(Debug)]
pub struct Request<'a> {
    /// `None` asks for no answer.
    pub id: Option<Value>,
    /// What to do.
    pub method: String,
    count: usize,
    text: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads the outside of a request.
    pub fn read(text: &'a [u8]) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        struct Outside {
            #[serde(default)]
            id: Option<Value>,
            #[serde(default)]
            method: String,
            #[serde(default)]
            params: Option<Vec<IgnoredAny>>,
        }
        if text.trim_ascii().is_empty() {
            return Err(RpcError::invalid_request("invalid request: it is empty"));
        }
        let outside: Outside = serde_json::from_slice(text).map_err(|error| match error.classify() {
            Category::Data => RpcError::invalid_request(format!("invalid request: {error}")),
            _ => RpcError::parse(format!("unmarshaling request: {error}")),
        })?;
        if !is_object(text) {
            return Err(RpcError::invalid_request("invalid request: expected one object"));
        }
        if !matches!(&outside.id, None | Some(Value::Number(_) | Value::String(_))) {
            return Err(RpcError::invalid_request("invalid request: the id must be a number or a string"));
        }
        let count = outside.params.map_or(0, |params| params.len());
        Ok(Self { id: outside.id, method: outside.method, count, text })
    }

    /// Reads the parameters: a tuple of exactly this many.
    pub fn params<T: DeserializeOwned>(&self, expected: usize) -> Result<T, RpcError> {
        #[derive(Deserialize)]
        struct Inside<T> {
            params: T,
        }
        if self.count != expected {
            return Err(RpcError::wrong_count(expected, self.count));
        }
        let inside: Inside<T> = serde_json::from_slice(self.text).map_err(|error| {
            RpcError::parse(format!("unmarshaling params for '{}': {error}", shorten(&self.method)))
        })?;
        Ok(inside.params)
    }

    /// Checks that there are no parameters; they may be missing altogether.
    pub fn no_params(&self) -> Result<(), RpcError> {
        if self.count == 0 { Ok(()) } else { Err(RpcError::wrong_count(0, self.count)) }
    }

    /// The namespace somebody subscribes to.
    pub fn namespace(&self) -> Result<[u8; 29], RpcError> {
        self.params::<(NamespaceJson,)>(1).map(|(namespace,)| namespace.0)
    }
}

/// Writes an answer. `result` is JSON already.
pub fn response(id: Option<&Value>, answer: &Result<String, RpcError>) -> String {
    let id = id.unwrap_or(&Value::Null);
    match answer {
        Ok(result) => format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{result}}}"#),
        Err(error) => format!(r#"{{"error":{},"id":{id},"jsonrpc":"2.0"}}"#, json(error)),
    }
}

/// Writes what is known to be writable.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists are always JSON")
}

fn shorten(method: &str) -> String {
    method.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> i32 {
        Request::read(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn what_is_not_json_is_told_apart_from_what_is_no_request() {
        for text in ["{", "GET / HTTP/1.1", "\u{0}\u{1}", r#"{"method":"a""#] {
            assert_eq!(code(text), -32700, "{text:?}");
        }
        for text in ["", " \n", "7", "[]", r#"[1,"a",[]]"#, r#"{"method":7}"#, r#"{"id":[],"method":"a"}"#] {
            assert_eq!(code(text), -32600, "{text:?}");
        }
    }

    #[test]
    fn parameters_are_counted_before_they_are_read() {
        let request =
            Request::read(br#"{"id":1,"method":"m","params":[1,"x"],"meta":{"SpanContext":"AA=="}}"#)
                .unwrap();
        assert_eq!(request.params::<(u64, String)>(2), Ok((1, "x".to_owned())));
        assert_eq!(request.params::<(u64,)>(1).unwrap_err().code, -32602);
        assert_eq!(request.no_params().unwrap_err().code, -32602);
        assert_eq!(request.params::<(u64, u64)>(2).unwrap_err().code, -32700);
        assert!(Request::read(br#"{"method":"m"}"#).unwrap().no_params().is_ok());
        assert!(Request::read(br#"{"method":"m","params":null}"#).unwrap().no_params().is_ok());
    }

    #[test]
    fn an_answer_carries_the_id_it_was_asked_with() {
        let id = Value::from(7);
        assert_eq!(response(Some(&id), &Ok("null".to_owned())), r#"{"id":7,"jsonrpc":"2.0","result":null}"#);
        let error = Err(RpcError::application("blob: not found"));
        let expected = r#"{"error":{"code":1,"message":"blob: not found"},"id":null,"jsonrpc":"2.0"}"#;
        assert_eq!(response(None, &error), expected);
    }
}
