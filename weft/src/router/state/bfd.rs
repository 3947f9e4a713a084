//! BFD, of each neighbour and as a whole.

use weft_api::types as api;
use weft_bfd_io::{BOUNDS, Discard, DownReason, Scheduling, SessionSnapshot, Snapshot, State};

/// The session with a neighbour.
pub(super) fn session(snapshot: &SessionSnapshot) -> api::BfdSession {
    let status = &snapshot.status;
    let counters = status.counters;
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    api::BfdSession {
        state: state(status.state),
        remote_state: state(status.remote_state),
        multihop: status.config.path.is_multihop(),
        minimum_ttl: status.config.path.minimum_ttl(),
        since: status.since.map(|since| since.elapsed().as_secs()),
        down: status.down.map(|down| {
            let code = match down.reason {
                DownReason::Silence { .. } => api::BfdDownCode::Silence,
                DownReason::Neighbor(_) => api::BfdDownCode::Neighbor,
                DownReason::NeighborAdminDown => api::BfdDownCode::NeighborAdminDown,
                DownReason::AdminDown => api::BfdDownCode::AdminDown,
            };
            api::Why::new(code, down.reason.to_string())
        }),
        problem: snapshot.problem.clone(),
        discriminator: status.discriminator,
        remote_discriminator: status.remote_discriminator,
        transmit_interval: micros(status.transmit_interval),
        detection_time: micros(status.detection_time),
        remote_transmit_interval: micros(status.remote_desired_min_tx),
        remote_receive_interval: micros(status.remote_required_min_rx),
        remote_multiplier: status.remote_multiplier,
        remote_demand: status.remote_demand,
        remote_independent: status.remote_independent,
        received: counters.received,
        sent: counters.sent,
        unsent: snapshot.unsent,
        ups: counters.ups,
        downs: counters.downs,
        late: counters.late,
        sent_late: counters.sent_late,
    }
}

fn state(state: State) -> api::BfdState {
    match state {
        State::AdminDown => api::BfdState::AdminDown,
        State::Down => api::BfdState::Down,
        State::Init => api::BfdState::Init,
        State::Up => api::BfdState::Up,
    }
}

/// All sessions, and the thread.
pub(super) fn status(snapshot: &Snapshot) -> api::BfdStatus {
    let sessions = snapshot.sessions.iter();
    let up = sessions.filter(|one| one.status.state == State::Up).count();
    let discarded = Discard::ALL.into_iter().zip(snapshot.discarded);
    let lateness = &snapshot.lateness;
    let bounds = BOUNDS.iter().map(|bound| Some(u64::from(*bound)));
    let classes = bounds.chain([None]).zip(lateness.counts);
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    api::BfdStatus {
        scheduling: match snapshot.scheduling {
            Scheduling::RealTime => api::BfdScheduling::RealTime,
            Scheduling::Nice => api::BfdScheduling::Nice,
            Scheduling::Ordinary => api::BfdScheduling::Ordinary,
        },
        sessions: snapshot.sessions.len() as u64,
        up: up as u64,
        problem: snapshot.problem.clone(),
        discarded: discarded
            .map(|(reason, packets)| api::BfdDiscarded {
                reason: reason.as_str().to_owned(),
                packets,
            })
            .collect(),
        dropped: snapshot.dropped,
        lateness: api::BfdLateness {
            classes: classes
                .map(|(at_most, times)| api::BfdLatenessClass { at_most, times })
                .collect(),
            sum: micros(lateness.sum),
            longest: micros(lateness.longest),
        },
    }
}
