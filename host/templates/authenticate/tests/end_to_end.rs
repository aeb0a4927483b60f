//! The built library in a real host, over HTTP, with the routes of `apisix.yaml` and a service of
//! the test's own.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use plugin_abi::testing::{RealHost, get};

/// Knows the token `t`, and nobody else; one request for each connection.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
            let (status, body) = match head.contains("Bearer t\r\n") {
                true => ("200 OK", "{\"name\":\"ada\"}"),
                false => ("401 Unauthorized", ""),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn the_library_serves() {
    let routes = include_str!("../apisix.yaml").replace("127.0.0.1:9180", &service().to_string());
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR"))
        .routes(routes)
        .start();
    assert_eq!(host.get("/orders").status(), 401);
    let wrong = get("/orders").header("Authorization", "Bearer x");
    assert_eq!(host.send(&wrong).status(), 401);
    // The built-in upstream answers with what it got.
    let echo = host.send(&get("/orders").header("Authorization", "Bearer t"));
    assert!(
        echo.text().contains(r#"["x-user", "ada"]"#),
        "{}",
        echo.text()
    );
}
