//! Limits: whoever takes more than his share is told so, and nobody else notices.

use std::num::NonZeroU32;

use dotmac_domain::access::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{authorization, connect, hear, say, statuses};
use crate::{
    api::{
        DEPLOYMENTS, Serving,
        tests::world::{ADMIN, World},
    },
    config::Limits,
};

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

async fn limited(limits: Limits) -> World {
    World::serving(Serving {
        limits,
        ..Serving::default()
    })
    .await
}

#[tokio::test]
async fn a_flood_of_one_caller_is_refused_and_others_are_served() {
    let world = limited(Limits {
        requests_per_second: number(1),
        requests_burst: number(20),
        ..Limits::default()
    })
    .await;
    let other = world.token(Role::Auditor, None).await;
    // A long list costs as much as ten seconds give.
    let long = format!("{DEPLOYMENTS}?limit=1000");
    let mut refused = None;
    for _ in 0..4 {
        let answer = world.get(&long).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("two long lists are all there is");
    assert_eq!(refused.problem(), (429, "rate-limited".into(), vec![]));
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert!(refused.header("ratelimit").contains(";r=0;"));
    // A header that anybody can write makes nobody somebody else.
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-id"] {
        let request = world.request("GET", &long).bearer_auth(ADMIN);
        assert_eq!(
            World::send(request.header(header, "203.0.113.9"))
                .await
                .status,
            429
        );
    }
    for _ in 0..10 {
        assert_eq!(
            world.ask(&other, "GET", DEPLOYMENTS, None).await.status,
            200
        );
    }
}

#[tokio::test]
async fn guessing_tokens_is_slow_and_shuts_nobody_out() {
    let world = limited(Limits {
        guesses_per_second: number(1),
        guesses_burst: number(10),
        ..Limits::default()
    })
    .await;
    let mut statuses = Vec::new();
    for guess in 0..12 {
        let guess = format!("dotmac_pat_{guess:016}_guess");
        statuses.push(world.ask(&guess, "GET", DEPLOYMENTS, None).await.status);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[11], 429, "{statuses:?}");
    assert_eq!(world.get(DEPLOYMENTS).await.status, 200);
    assert_eq!(World::send(world.request("GET", "/")).await.status, 200);
}

#[tokio::test]
async fn whoever_shows_no_token_may_look_at_the_health_and_little_else() {
    let world = limited(Limits {
        guests_per_second: number(1),
        guests_burst: number(5),
        ..Limits::default()
    })
    .await;
    for _ in 0..6 {
        World::send(world.request("GET", "/")).await;
    }
    assert_eq!(World::send(world.request("GET", "/")).await.status, 429);
    for _ in 0..50 {
        let answer = World::send(world.request("GET", "/health/live")).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.get(DEPLOYMENTS).await.status, 200);
}

#[tokio::test]
async fn requests_that_never_end_hold_their_own_callers_places_only() {
    let world = limited(Limits {
        requests_at_once_per_caller: number(2),
        ..Limits::default()
    })
    .await;
    let other = world.token(Role::PlatformAdmin, None).await;
    let head = format!(
        "POST {DEPLOYMENTS} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: 100\r\n\
         Expect: 100-continue\r\n\r\n",
        authorization()
    );
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&world).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // Its body is asked for: it has its place.
        stream.read_exact(&mut [0; 25]).await.unwrap();
        open.push(stream);
    }
    let (own, others) = tokio::join!(
        world.get(DEPLOYMENTS),
        world.ask(&other, "GET", DEPLOYMENTS, None)
    );
    assert_eq!(own.problem(), (429, "rate-limited".into(), vec![]));
    assert_eq!(others.status, 200);
    drop(open);
    let again = async { while world.get(DEPLOYMENTS).await.status != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), again)
        .await
        .expect("places come back");
}

#[tokio::test]
async fn streams_have_places_of_their_own() {
    let world = limited(Limits {
        streams: number(3),
        streams_per_caller: number(2),
        ..Limits::default()
    })
    .await;
    let other = world.token(Role::Auditor, None).await;
    let open = async |token: &str| {
        let request = world.request("GET", "/api/v1/events").bearer_auth(token);
        request.send().await.unwrap()
    };
    let (_first, second) = (open(ADMIN).await, open(ADMIN).await);
    let third = open(ADMIN).await;
    assert_eq!(
        (second.status().as_u16(), third.status().as_u16()),
        (200, 429)
    );
    assert!(third.headers().contains_key("retry-after"));
    assert_eq!(world.get(DEPLOYMENTS).await.status, 200);
    let others = open(&other).await;
    assert_eq!(
        (
            others.status().as_u16(),
            open(&other).await.status().as_u16()
        ),
        (200, 429)
    );
    drop(second);
    let again = async { while open(&other).await.status() != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), again)
        .await
        .expect("places come back");
}

#[tokio::test]
async fn silent_connections_make_room_for_those_who_speak() {
    let limits = Limits {
        connections: number(8),
        connections_per_peer: number(4),
        ..Limits::default()
    };
    for limits in [
        Limits {
            connections_per_peer: number(1000),
            ..limits.clone()
        },
        limits,
    ] {
        let most = limits.connections.min(limits.connections_per_peer).get() as usize;
        let world = limited(limits).await;
        let mut silent = Vec::new();
        for _ in 0..30 {
            let mut stream = connect(&world).await;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n")
                .await
                .unwrap();
            silent.push(stream);
        }
        let text = format!(
            "GET {DEPLOYMENTS} HTTP/1.1\r\n{}Connection: close\r\n\r\n",
            authorization()
        );
        assert_eq!(statuses(&say(&world, text).await), ["200"]);
        // The oldest ones were closed for it.
        for stream in &mut silent[..30 - most] {
            assert_eq!(hear(stream).await, "");
        }
    }
}

#[tokio::test]
async fn a_caller_has_so_many_connections_and_others_have_theirs() {
    let world = limited(Limits {
        connections_per_caller: number(2),
        ..Limits::default()
    })
    .await;
    let other = world.token(Role::Auditor, None).await;
    let text = |token: &str| {
        format!("GET {DEPLOYMENTS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&world).await;
        stream.write_all(text(ADMIN).as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        open.push(stream);
    }
    let third = say(&world, text(ADMIN)).await;
    assert_eq!(statuses(&third), ["429"], "{third}");
    assert!(third.contains("connection: close"), "{third}");
    assert_eq!(
        world.ask(&other, "GET", DEPLOYMENTS, None).await.status,
        200
    );
}
