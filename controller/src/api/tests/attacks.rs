//! What somebody tries who means harm, byte by byte over real sockets: what he says with two meanings, where he is not
//! let in, and what he takes from others. Each test is named by what does not work.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    changes::named,
    world::{ADMIN, World},
};
use crate::api::DEPLOYMENTS;

mod addresses;
mod limits;
mod stopping;

/// Says something to a world, and hears everything until it closes the connection.
async fn say(world: &World, text: impl AsRef<[u8]>) -> String {
    let mut stream = connect(world).await;
    // It may be told no, and lose its connection, before it has said all.
    let _ = stream.write_all(text.as_ref()).await;
    hear(&mut stream).await
}

async fn connect(world: &World) -> TcpStream {
    let address = world.address.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8(heard).unwrap()
}

/// The status codes in what was heard.
fn statuses(heard: &str) -> Vec<&str> {
    let starts = heard.match_indices("HTTP/1.1 ");
    let codes = starts.filter_map(|(at, _)| heard.get(at + 9..at + 12));
    codes.filter(|code| code.parse::<u16>().is_ok()).collect()
}

fn authorization() -> String {
    format!("Host: h\r\nAuthorization: Bearer {ADMIN}\r\n")
}

/// A deployment that an attacker would like to be gone.
async fn target(world: &World) -> String {
    let created = world.post(DEPLOYMENTS, &named("Target")).await;
    created.json()["id"].as_str().unwrap().to_owned()
}

async fn is_untouched(world: &World, id: &str) -> bool {
    let shown = world.get(&format!("{DEPLOYMENTS}/{id}")).await;
    shown.json()["status"] == "provisioning" && world.node.state().deployments.size() == 1
}

#[tokio::test]
async fn no_request_hides_in_another_ones_body() {
    let world = World::new().await;
    let id = target(&world).await;
    let own = authorization();
    let hidden = format!("DELETE {DEPLOYMENTS}/{id} HTTP/1.1\r\n{own}\r\n");
    let length = hidden.len();
    let chunk = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let post = format!("POST {DEPLOYMENTS} HTTP/1.1\r\n{own}Content-Type: application/json\r\n");
    let close = "Connection: close\r\n";
    for attack in [
        // CL.TE and TE.CL, in both orders, and disguised.
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("{post}X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("{post}X: y\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("{post}X: y\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
        // Two lengths.
        format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: {length}, 0\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0 {length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: -0\r\n\r\n{hidden}"),
        // Chunks that say more than their length.
        format!("{post}Transfer-Encoding: chunked\r\n\r\n0;\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n2;a=\n{{}}\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}"),
        format!(
            "{post}Transfer-Encoding: chunked\r\n\r\n00000000000000002\r\n{{}}\r\n0\r\n\r\n{hidden}"
        ),
        // Another protocol.
        format!(
            "{post}Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: {length}\r\n\r\n{hidden}{post}{close}\r\n"
        ),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}"),
        // A body that really is one.
        format!("{post}{close}Content-Length: {length}\r\n\r\n{hidden}"),
        format!("{post}{close}Transfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{close}Content-Length: {length}\r\n\r\n{hidden}"),
    ] {
        let heard = say(&world, &attack).await;
        let found = statuses(&heard);
        let is_refused = found
            .iter()
            .all(|status| status.starts_with('4') || *status == "200");
        assert!(!found.is_empty() && is_refused, "{attack}\n{heard}");
        assert!(is_untouched(&world, &id).await, "{attack}\n{heard}");
    }
    // What is meant to be two requests is two requests.
    let two = format!(
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nDELETE {DEPLOYMENTS}/{id} HTTP/1.1\r\n{own}{close}\r\n"
    );
    assert_eq!(statuses(&say(&world, &two).await), ["200", "202"]);
    assert!(!is_untouched(&world, &id).await);
}

#[tokio::test]
async fn a_head_that_is_refused_is_answered_with_a_problem() {
    let world = World::new().await;
    for (attack, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), "400"),
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET /\u{0} HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "400"),
        (
            "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "405",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64)),
            "431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
                "y".repeat(70_000)
            ),
            "431",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "y".repeat(9_000)),
            "431",
        ),
    ] {
        let heard = say(&world, &attack).await;
        assert_eq!(statuses(&heard), [status], "{attack:.200}\n{heard}");
        for part in [
            "application/problem+json",
            "x-request-id: ",
            "connection: close",
            "\"next\":",
        ] {
            assert!(heard.contains(part), "{part} in {heard}");
        }
    }
}

#[tokio::test]
async fn bodies_that_are_no_text_or_mean_two_things_change_nothing() {
    let world = World::new().await;
    let send = async |kind: &'static str, body: Vec<u8>| {
        let request = world.request("POST", DEPLOYMENTS).bearer_auth(ADMIN);
        let request = request.header("content-type", kind).body(body);
        World::send(request).await.problem().1
    };
    let json = "application/json";
    let name = |bytes: &[u8]| [b"{\"tenant_name\":\"", bytes, b"\"}"].concat();
    for (body, code) in [
        (name(b"\xff\xfe"), "malformed"),
        (name(b"\xc0\xaf"), "malformed"),
        (name(b"\xed\xa0\x80"), "malformed"),
        (name(b"\\ud800"), "malformed"),
        (name(b"a\nb"), "malformed"),
        (name(b"a\\u0000b"), "invalid"),
        (b"\xef\xbb\xbf{\"tenant_name\":\"X\"}".to_vec(), "malformed"),
        (
            br#"{"tenant_name":"X","tenant_name":"Y"}"#.to_vec(),
            "invalid",
        ),
        (
            br#"{"tenant_name":"X","tenant_\u006eame":"Y"}"#.to_vec(),
            "invalid",
        ),
        (
            br#"{"tenant_name":"X"}{"tenant_name":"Y"}"#.to_vec(),
            "malformed",
        ),
        (br#"{"tenant_name":"X",}"#.to_vec(), "malformed"),
        (br#"{"tenant_name":"X"/**/}"#.to_vec(), "malformed"),
        (
            br#"{"tenant_name":"X","max_customers":1e400}"#.to_vec(),
            "malformed",
        ),
        (
            br#"{"tenant_name":"X","max_customers":NaN}"#.to_vec(),
            "malformed",
        ),
        ("[".repeat(200_000).into_bytes(), "malformed"),
        (r#"{"a":"#.repeat(40_000).into_bytes(), "malformed"),
        (name(&[b'x'; 256 * 1024]), "too-large"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(send(json, body).await, code, "{shown}");
    }
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "text/json",
    ] {
        assert_eq!(
            send(kind, name(b"X")).await,
            "unsupported-media-type",
            "{kind}"
        );
    }
    assert!(world.node.state().deployments.is_empty());
}

#[tokio::test]
async fn nothing_is_unpacked_and_nothing_is_packed() {
    let world = World::new().await;
    let body = named("Packed").to_string();
    for packing in ["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip"] {
        let request = world.request("POST", DEPLOYMENTS).bearer_auth(ADMIN);
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", packing)
            .body(body.clone());
        assert_eq!(
            World::send(request).await.problem().1,
            "unsupported-media-type",
            "{packing}"
        );
    }
    let request = world.request("GET", DEPLOYMENTS).bearer_auth(ADMIN);
    let answer = World::send(request.header("accept-encoding", "gzip, br")).await;
    assert_eq!(
        (answer.status, answer.header("content-encoding")),
        (200, "")
    );
    assert!(world.node.state().deployments.is_empty());
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing_with_a_browser() {
    let world = World::new().await;
    let cookie = format!("token={ADMIN}; dotmac={ADMIN}");
    let mut answers = Vec::new();
    for origin in ["https://evil.example", "null", &world.address] {
        let from = |method: &str, path: &str| {
            world
                .request(method, path)
                .header("origin", origin)
                .header("cookie", &cookie)
        };
        // What a browser sends without asking first: no token, whatever cookies there are.
        let form = from("POST", DEPLOYMENTS)
            .header("content-type", "text/plain")
            .body(named("X").to_string());
        answers.push((World::send(form).await, 401));
        answers.push((World::send(from("GET", DEPLOYMENTS)).await, 401));
        // What it asks first is never allowed.
        let asking = from("OPTIONS", DEPLOYMENTS)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization, content-type",
            );
        let answer = asking.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), opening(answer.headers())),
            (204, None)
        );
        // Where a request comes from opens nothing, and closes nothing to whoever has a token.
        answers.push((
            World::send(from("GET", DEPLOYMENTS).bearer_auth(ADMIN)).await,
            200,
        ));
        let form = from("POST", DEPLOYMENTS)
            .bearer_auth(ADMIN)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("tenant_name=X");
        answers.push((World::send(form).await, 415));
    }
    for (answer, status) in answers {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(opening(&answer.headers), None);
    }
    assert!(world.node.state().deployments.is_empty());
}

/// A header that opens an answer to other sites' pages, or makes a browser come back as somebody.
fn opening(headers: &reqwest::header::HeaderMap) -> Option<&str> {
    let mut names = headers.keys().map(|name| name.as_str());
    names.find(|name| name.starts_with("access-control-") || *name == "set-cookie")
}

#[tokio::test]
async fn nobody_sets_what_is_not_his_to_set() {
    let world = World::new().await;
    let id = target(&world).await;
    let before = world.get(&format!("{DEPLOYMENTS}/{id}")).await.json();
    let stolen = json!({"id": "other-00000000", "status": "active", "revision": 99, "generation": 99,
        "role": "platform_admin", "created_at": "2020-01-01T00:00:00Z", "agent": "mine", "credentials": ["x"],
        "warrant": {}, "__proto__": {"admin": true}, "delete_after": null});
    let members = stolen.as_object().unwrap();
    let names: Vec<String> = members
        .keys()
        .filter(|name| *name != "delete_after")
        .cloned()
        .collect();
    for (method, path, with) in [
        ("POST", DEPLOYMENTS.to_owned(), json!({"tenant_name": "X"})),
        (
            "PATCH",
            format!("{DEPLOYMENTS}/{id}"),
            json!({"max_customers": 5}),
        ),
    ] {
        let mut body = stolen.clone();
        body.as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        let answer = world.ask(ADMIN, method, &path, Some(&body)).await;
        let (status, code, mut fields) = answer.problem();
        assert_eq!((status, code.as_str()), (422, "invalid"), "{method}");
        fields.retain(|field| names.contains(field));
        assert_eq!(fields, names, "{method}: {}", answer.text);
    }
    let own = json!({"tenant_id": id, "environment": "production"});
    let answer = world
        .ask(ADMIN, "PATCH", &format!("{DEPLOYMENTS}/{id}"), Some(&own))
        .await;
    assert_eq!(answer.problem().2, ["environment", "tenant_id"]);
    assert_eq!(
        world.get(&format!("{DEPLOYMENTS}/{id}")).await.json(),
        before
    );
}
