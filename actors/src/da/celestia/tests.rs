use super::*;

fn client(address: &str) -> Result<Celestia, ConfigError> {
    Celestia::new(Config::at(address))
}

#[test]
fn the_scheme_chooses_between_http_and_web_socket() {
    for (address, http, socket) in [
        ("http://localhost:7980", "http://localhost:7980/", false),
        ("https://da.example/rpc", "https://da.example/rpc", false),
        ("ws://127.0.0.1:26658", "http://127.0.0.1:26658/", true),
        ("wss://da.example", "https://da.example/", true),
    ] {
        let client = client(address).unwrap();
        assert_eq!(client.url.as_str(), http);
        assert_eq!(client.socket.is_some(), socket, "{address}");
    }
}

#[test]
fn an_address_that_cannot_be_used_is_refused_with_advice() {
    for address in ["", "localhost", "localhost:7980", "ftp://localhost", "http://", "http://host:99999"] {
        let error = client(address).unwrap_err().to_string();
        assert!(error.contains(address) && error.contains("http://host:port"), "{error}");
    }
    let error = client("http://user:secret@host").unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn the_token_is_trimmed_checked_and_never_shown() {
    let mut config = Config::at("ws://localhost:1");
    config.auth_token = Some(AuthToken::new("s3cret\n"));
    assert!(!format!("{config:?}").contains("s3cret"));
    assert_eq!(bearer(&AuthToken::new("s3cret\n")).unwrap().as_bytes(), b"Bearer s3cret");
    assert!(!format!("{:?}", Celestia::new(config.clone()).unwrap()).contains("s3cret"));
    config.auth_token = Some(AuthToken::new("two\nlines"));
    assert!(matches!(Celestia::new(config), Err(ConfigError::AuthToken)));
}

#[test]
fn a_status_is_told_apart_by_what_helps_against_it() {
    let fate = |status: u16, body: &str| {
        check_status(StatusCode::from_u16(status).unwrap(), body.as_bytes()).map_err(|error| error.reason())
    };
    assert_eq!(fate(200, ""), Ok(()));
    assert_eq!(fate(400, "{}"), Ok(()));
    assert_eq!(fate(500, " {}"), Ok(()));
    assert_eq!(fate(500, "<html>"), Err("timeout"));
    assert_eq!(fate(503, "{}"), Err("timeout"));
    assert_eq!(fate(429, ""), Err("timeout"));
    assert_eq!(fate(413, ""), Err("too_big"));
    assert_eq!(fate(401, ""), Err("unknown"));
    assert_eq!(fate(307, ""), Err("unknown"));
    assert_eq!(fate(404, ""), Err("unknown"));
}

#[test]
fn only_what_runs_on_this_machine_is_reached_without_a_proxy() {
    let local = |address: &str| is_local(&Url::parse(address).unwrap());
    assert!(local("http://localhost:1") && local("http://127.0.0.1:1") && local("http://[::1]:1"));
    assert!(!local("http://da.example:1") && !local("http://10.0.0.1:1"));
}
