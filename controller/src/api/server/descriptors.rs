//! File descriptors: every connection is one. A process that may open too few raises its own limit as far as it may,
//! and takes fewer connections if that is not enough, rather than failing when there are many.

use std::num::NonZeroU32;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything else: the store, snapshots, the log, the links.
const RESERVED: u64 = 512;

/// Makes room for so many connections; tells for how many there is.
pub(super) fn make_room(connections: NonZeroU32) -> NonZeroU32 {
    let wanted = u64::from(connections.get()) + RESERVED;
    let limit = getrlimit(Resource::Nofile);
    let open_max = match limit.current {
        Some(current) if current < wanted => raise(current, limit.maximum, wanted),
        current => current.unwrap_or(u64::MAX),
    };
    let fits = fitting(connections, open_max);
    if fits < connections {
        tracing::warn!(
            connections = fits,
            wanted = connections,
            descriptors = open_max,
            "fewer connections than configured: raise the limit of open files (LimitNOFILE)"
        );
    } else {
        tracing::info!(
            connections,
            descriptors = open_max,
            "places for connections"
        );
    }
    fits
}

fn raise(current: u64, maximum: Option<u64>, wanted: u64) -> u64 {
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(_) => current,
    }
}

fn fitting(connections: NonZeroU32, open_max: u64) -> NonZeroU32 {
    let room = open_max.saturating_sub(RESERVED).max(open_max / 2);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    NonZeroU32::new(room).map_or(NonZeroU32::MIN, |room| room.min(connections))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::fitting;

    #[test]
    fn never_more_connections_than_there_are_descriptors_for() {
        let fits = |open_max| fitting(NonZeroU32::new(4096).unwrap(), open_max).get();
        assert_eq!(
            [0, 1, 256, 1024, 4096, 4608, u64::MAX].map(fits),
            [1, 1, 128, 512, 3584, 4096, 4096]
        );
    }
}
