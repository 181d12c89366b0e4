//! A controller that stops while it is asked: nobody gets half an answer.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{authorization, connect, hear, say, statuses};
use crate::api::{
    DEPLOYMENTS, Serving,
    tests::{changes::named, world::World},
};

/// Reads until something was said.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(wanted) {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap();
        assert_ne!(count, 0, "{wanted} does not come after {heard}");
        heard.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    heard
}

#[tokio::test]
async fn a_controller_that_stops_says_so_first_and_ends_what_it_began() {
    let world = World::serving(Serving {
        stop_notice: Duration::from_secs(2),
        ..Serving::default()
    })
    .await;
    let own = authorization();
    let body = named("Late").to_string();
    let (half, rest) = body.split_at(5);
    // A change whose body is still coming, a stream, a connection that waits for its next request, and a new one.
    let mut change = connect(&world).await;
    let head = format!(
        "POST {DEPLOYMENTS} HTTP/1.1\r\n{own}Content-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    change.write_all(head.as_bytes()).await.unwrap();
    until(&mut change, "100 Continue\r\n\r\n").await;
    change.write_all(half.as_bytes()).await.unwrap();
    let mut stream = connect(&world).await;
    let events = format!("GET /api/v1/events HTTP/1.1\r\n{own}\r\n");
    stream.write_all(events.as_bytes()).await.unwrap();
    until(&mut stream, "synced").await;
    let ask = format!("GET {DEPLOYMENTS} HTTP/1.1\r\n{own}\r\n");
    let mut waiting = connect(&world).await;
    waiting.write_all(ask.as_bytes()).await.unwrap();
    until(&mut waiting, "next_cursor").await;
    let address = world.address.strip_prefix("http://").unwrap().to_owned();
    let stopping = world.node.stopping();
    let (mut stopped, ready) = (
        stopping.clone(),
        "GET /health/ready HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_eq!(
        statuses(
            &say(
                &world,
                ready.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
            )
            .await
        ),
        ["200"]
    );
    let asked = async {
        stopped.wait_for(|stopping| *stopping).await.unwrap();
        let mut fresh = TcpStream::connect(&address).await.unwrap();
        fresh.write_all(ready.as_bytes()).await.unwrap();
        let told = hear(&mut fresh).await;
        assert_eq!(statuses(&told), ["503"], "{told}");
        assert!(
            told.contains("about to stop") && told.contains("connection: close"),
            "{told}"
        );
        waiting.write_all(ask.as_bytes()).await.unwrap();
        let last = hear(&mut waiting).await;
        assert!(
            statuses(&last) == ["200"] && last.contains("connection: close"),
            "{last}"
        );
        let end = hear(&mut stream).await;
        assert!(
            end.contains("this controller stops") && end.ends_with("\r\n0\r\n\r\n"),
            "{end}"
        );
        change.write_all(rest.as_bytes()).await.unwrap();
        let made = hear(&mut change).await;
        assert!(
            statuses(&made) == ["201"] && made.contains("connection: close"),
            "{made}"
        );
    };
    let node = std::sync::Arc::clone(&world.node);
    tokio::join!(asked, world.stop());
    assert_eq!(node.state().deployments.size(), 1);
    assert!(TcpStream::connect(&address).await.is_err());
}
