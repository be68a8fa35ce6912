//! What goes wrong before anything works, and that no password shows.

use tidings::transport::registry;

use super::support::{Wire, transport, url};

/// The URL with another password, path, port or query.
fn with(change: impl FnOnce(&mut url::Url)) -> String {
    let mut url = url::Url::parse(&url()).unwrap();
    change(&mut url);
    url.into()
}

async fn refused(url: &str) -> tidings::Error {
    match registry::connect(url).await {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(!text.contains("s3cret"), "the password shows: {text}");
            assert!(error.remedy_text().is_some(), "no remedy: {text}");
            error
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_error() {
    let Some(transport) = transport().await else { return };
    let error = refused(&with(|url| url.set_password(Some("s3cret")).unwrap())).await;
    assert_eq!((error.code(), error.field_name()), ("ACCESS_REFUSED", Some("user")));

    let error = refused(&with(|url| url.set_path("/no-such-vhost"))).await;
    assert_eq!((error.code(), error.field_value()), ("ACCESS_REFUSED", Some("no-such-vhost")), "{error:?}");

    let error = refused("amqp://guest:s3cret@127.0.0.1:1").await;
    assert_eq!((error.code(), error.field_name()), ("CONNECTION_FAILED", Some("broker")));
    assert!(error.retryable());

    let error = refused(&with(|url| url.set_query(Some("frobnicate=1")))).await;
    assert_eq!((error.code(), error.field_value()), ("INVALID_URL", Some("frobnicate")));

    let error = refused("amqps://guest:s3cret@127.0.0.1?verify=verify_none").await;
    assert_eq!((error.code(), error.field_name()), ("INVALID_URL", Some("verify")));

    assert!(!format!("{transport:?}").contains("password"));
    transport.ping().await.unwrap();
    transport.close().await.unwrap();
    assert_eq!(transport.ping().await.unwrap_err().code(), "CLOSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_given_up_on() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = std::time::Instant::now();
    let error = refused(&format!("amqp://guest:s3cret@127.0.0.1:{port}?connection_timeout=100")).await;
    assert_eq!(error.code(), "CONNECTION_FAILED");
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified() {
    let (Ok(url), Ok(ca)) = (std::env::var("AMQPS_URL"), std::env::var("TIDINGS_TEST_CA")) else {
        println!("SKIPPED: no AMQPS_URL or TIDINGS_TEST_CA");
        return;
    };
    let transport = registry::connect(&format!("{url}?cacertfile={ca}&verify=verify_peer")).await.unwrap();
    transport.ping().await.unwrap();
    transport.close().await.unwrap();

    let error = refused(&url).await;
    assert_eq!(error.code(), "TLS_FAILED", "{error:?}");
    let error = refused(&format!("{url}?cacertfile=/no/such/file.pem")).await;
    assert_eq!((error.code(), error.field_name()), ("TLS_FAILED", Some("cacertfile")));
    if let (Ok(cert), Ok(key)) = (std::env::var("TIDINGS_TEST_CERT"), std::env::var("TIDINGS_TEST_KEY")) {
        let transport =
            registry::connect(&format!("{url}?cacertfile={ca}&certfile={cert}&keyfile={key}")).await.unwrap();
        transport.close().await.unwrap();
        let error = refused(&format!("{url}?cacertfile={ca}&certfile={cert}&keyfile={cert}")).await;
        assert_eq!((error.code(), error.field_name()), ("TLS_FAILED", Some("keyfile")));
    }
    if let Ok(wrong) = std::env::var("TIDINGS_TEST_WRONG_CA") {
        let error = refused(&format!("{url}?cacertfile={wrong}")).await;
        assert_eq!((error.code(), error.field_name()), ("TLS_FAILED", Some("cacertfile")), "{error:?}");
    }
}

/// The certificate is one of the right authority, for another host than the one that the URL names.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_host_is_refused() {
    let (Ok(url), Ok(ca)) = (std::env::var("AMQPS_URL"), std::env::var("TIDINGS_TEST_CA")) else {
        println!("SKIPPED: no AMQPS_URL or TIDINGS_TEST_CA");
        return;
    };
    let url = url::Url::parse(&format!("{url}?cacertfile={ca}")).unwrap();
    let Ok(wire) = Wire::before(url.clone(), "127.0.0.2") else {
        println!("SKIPPED: this machine has no 127.0.0.2");
        return;
    };
    let error = refused(&wire.url).await;
    assert_eq!((error.code(), error.field_name()), ("TLS_FAILED", Some("host")), "{error:?}");
    assert_eq!(error.field_value(), Some("127.0.0.2"));
    // It is the name alone: the same way leads to the server where the certificate is for the name.
    let good = Wire::before(url, "127.0.0.1").unwrap();
    registry::connect(&good.url).await.unwrap().close().await.unwrap();
}
