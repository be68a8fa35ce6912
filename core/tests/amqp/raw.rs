//! A publisher that writes its frames itself: what no client library would send.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A list of lists of lists …, in as many levels, as the value of the header `deep`.
pub(super) fn nested_headers(levels: usize) -> Vec<u8> {
    let mut lists = Vec::with_capacity(5 * levels);
    for inner in (0..levels).rev() {
        lists.push(b'A');
        lists.extend(u32::try_from(5 * inner).unwrap().to_be_bytes());
    }
    [b"\x04deep".to_vec(), lists].concat()
}

/// Publishes `{}` with a table of these headers, already encoded, and waits until the server has taken it.
pub(super) fn publish(url: &str, exchange: &str, routing_key: &str, headers: &[u8]) {
    let url = url::Url::parse(url).unwrap();
    let address = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let login = [b"\0", url.username().as_bytes(), b"\0", url.password().unwrap_or_default().as_bytes()].concat();
    let vhost = url.path().trim_start_matches('/').replace("%2f", "/");
    let vhost = if vhost.is_empty() { "/" } else { &vhost };
    assert_eq!(read_frame(&mut stream)[..4], [0, 10, 0, 10], "the server did not start");
    let start_ok = method(10, 11, &[&long(b""), &short("PLAIN"), &long(&login), &short("en_US")]);
    stream.write_all(&framed(1, 0, &start_ok)).unwrap();
    let tune = read_frame(&mut stream);
    assert_eq!(tune[..4], [0, 10, 0, 30], "the server did not take the login");
    // Its limits, and no heartbeats.
    for (channel, request) in [
        (0, method(10, 31, &[&tune[4..10], &[0, 0]])),
        (0, method(10, 40, &[&short(vhost), &[0, 0]])),
        (1, method(20, 10, &[&[0]])),
    ] {
        stream.write_all(&framed(1, channel, &request)).unwrap();
    }
    assert_eq!(read_frame(&mut stream)[..4], [0, 10, 0, 41], "the virtual host was not opened");
    assert_eq!(read_frame(&mut stream)[..4], [0, 20, 0, 11], "no channel was opened");
    let properties = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x20, 0], long(headers).as_slice()].concat();
    let publish = method(60, 40, &[&[0, 0], &short(exchange), &short(routing_key), &[0]]);
    let close = method(20, 40, &[&[0, 200], &short(""), &[0, 0, 0, 0]]);
    for (kind, payload) in [(1, publish), (2, properties), (3, b"{}".to_vec()), (1, close)] {
        stream.write_all(&framed(kind, 1, &payload)).unwrap();
    }
    assert_eq!(read_frame(&mut stream)[..4], [0, 20, 0, 41], "the publish was not taken");
}

fn method(class: u16, id: u16, arguments: &[&[u8]]) -> Vec<u8> {
    [class.to_be_bytes().as_slice(), &id.to_be_bytes(), &arguments.concat()].concat()
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [[kind].as_slice(), &channel.to_be_bytes(), &long(payload), &[0xce]].concat()
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut start = [0; 7];
    stream.read_exact(&mut start).unwrap();
    let length = u32::from_be_bytes([start[3], start[4], start[5], start[6]]);
    let mut payload = vec![0; length as usize + 1];
    stream.read_exact(&mut payload).unwrap();
    payload
}
