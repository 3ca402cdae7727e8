//! A client's frames, read strictly and written.

use std::time::Duration;

use prost::Message as _;

use crate::protocol::argument;
use crate::protocol::decode_error::DecodeError;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::StartAt;
use crate::protocol::frame::Subscribe;
use crate::protocol::frame::Token;
use crate::protocol::protobuf::shape;
use crate::protocol::protobuf::wire;
use crate::protocol::protobuf::wire::client_message::Frame;
use crate::protocol::protobuf::wire::subscribe::Filter;
use crate::protocol::protobuf::wire::subscribe::From;
use crate::types::filter::KeyFilter;
use crate::types::ids::RequestId;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Positions;
use crate::types::positions::Reached;

/// Positions as `wire` has them.
pub(crate) type WirePositions = std::collections::BTreeMap<u32, u64>;

/// Leader epochs as protobuf has them.
pub(crate) type WireEpochs = std::collections::BTreeMap<u32, wire::Epoch>;

/// Reads a frame; see [`crate::protocol::protobuf::decode`].
pub(crate) fn read(bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
    // prost's own sentences are not passed on: they may hold what was sent.
    let message = wire::ClientMessage::decode(bytes).map_err(|_| {
        DecodeError::bad_frame("the message is no ClientMessage of brucke.v1, see proto/brucke/v1")
    })?;
    let id = message.frame.as_ref().and_then(id_of);
    shape::CLIENT_MESSAGE
        .check(bytes)
        .and_then(|()| read_frame(message))
        .map_err(|error| error.for_request(id))
}

fn id_of(frame: &Frame) -> Option<RequestId> {
    match frame {
        Frame::Subscribe(subscribe) => argument::request_id(subscribe.id).ok(),
        Frame::Unsubscribe(unsubscribe) => argument::request_id(unsubscribe.id).ok(),
        Frame::Authenticate(_) | Frame::Ack(_) | Frame::Ping(_) => None,
    }
}

fn read_frame(message: wire::ClientMessage) -> Result<ClientFrame, DecodeError> {
    let frame = message.frame.ok_or_else(|| {
        DecodeError::bad_frame(
            "a ClientMessage must hold one of authenticate, subscribe, unsubscribe, ack, ping",
        )
    })?;
    match frame {
        Frame::Authenticate(wire::Authenticate { token }) if token.is_empty() => {
            Err(DecodeError::bad_frame("`token` is empty"))
        }
        Frame::Authenticate(wire::Authenticate { token }) => {
            Ok(ClientFrame::Authenticate { token: Token::new(token) })
        }
        Frame::Subscribe(subscribe) => read_subscribe(subscribe).map(ClientFrame::Subscribe),
        Frame::Unsubscribe(wire::Unsubscribe { id, sub }) => {
            Ok(ClientFrame::Unsubscribe { id: argument::request_id(id)?, sub: argument::sub(sub)? })
        }
        Frame::Ack(wire::Ack { sub, positions }) => {
            Ok(ClientFrame::Ack { sub: argument::sub(sub)?, positions: read_positions(positions)? })
        }
        Frame::Ping(wire::Ping {}) => Ok(ClientFrame::Ping),
    }
}

fn read_subscribe(subscribe: wire::Subscribe) -> Result<Subscribe, DecodeError> {
    let wire::Subscribe { id, channel, filter, from, on_gap, window } = subscribe;
    Ok(Subscribe {
        id: argument::request_id(id)?,
        channel: argument::channel(channel)?,
        filter: match filter {
            None => KeyFilter::All,
            Some(Filter::Keys(wire::Keys { keys })) => argument::keys(keys)?,
            Some(Filter::Prefix(prefix)) => argument::prefix(prefix)?,
        },
        from: from.map_or(Ok(StartAt::Latest), read_from)?,
        on_gap: match wire::OnGap::try_from(on_gap) {
            Ok(wire::OnGap::Continue) => OnGap::Continue,
            Ok(wire::OnGap::Stop) => OnGap::Stop,
            Err(_) => {
                return Err(DecodeError::bad_frame(
                    "`on_gap` must be ON_GAP_CONTINUE or ON_GAP_STOP",
                ));
            }
        },
        window: match window {
            0 => None,
            records => Some(argument::window(records.into())?),
        },
    })
}

fn read_from(from: From) -> Result<StartAt, DecodeError> {
    Ok(match from {
        From::Latest(wire::Latest {}) => StartAt::Latest,
        From::Earliest(wire::Earliest {}) => StartAt::Earliest,
        From::TimestampMs(millis) => StartAt::Timestamp(argument::timestamp(millis)?),
        From::AgoMs(millis) => StartAt::Ago(argument::ago(Duration::from_millis(millis))?),
        From::Place(wire::Place { topic_id, positions, epochs }) => {
            let positions = read_positions(positions)?;
            let topic_id = argument::topic_id(&topic_id)?;
            let epochs = read_epochs(epochs)?;
            argument::check_epochs(&positions, &epochs)?;
            StartAt::Place(Place { topic_id, positions, epochs })
        }
    })
}

pub(crate) fn read_positions(wire: WirePositions) -> Result<Positions, DecodeError> {
    let mut positions = Positions::new();
    for (partition, offset) in wire {
        argument::add_position(&mut positions, Some(partition), offset)?;
    }
    Ok(positions)
}

/// Writes a frame; see [`crate::protocol::protobuf::encode_client`].
pub(crate) fn write(frame: &ClientFrame) -> Vec<u8> {
    let frame = match frame {
        ClientFrame::Authenticate { token } => {
            Frame::Authenticate(wire::Authenticate { token: token.secret().to_owned() })
        }
        ClientFrame::Subscribe(subscribe) => Frame::Subscribe(write_subscribe(subscribe)),
        ClientFrame::Unsubscribe { id, sub } => {
            Frame::Unsubscribe(wire::Unsubscribe { id: id.raw(), sub: sub.raw() })
        }
        ClientFrame::Ack { sub, positions } => {
            Frame::Ack(wire::Ack { sub: sub.raw(), positions: write_positions(positions) })
        }
        ClientFrame::Ping => Frame::Ping(wire::Ping {}),
    };
    wire::ClientMessage { frame: Some(frame) }.encode_to_vec()
}

fn write_subscribe(subscribe: &Subscribe) -> wire::Subscribe {
    wire::Subscribe {
        id: subscribe.id.raw(),
        channel: subscribe.channel.as_str().to_owned(),
        filter: match &subscribe.filter {
            KeyFilter::All => None,
            KeyFilter::Keys(keys) => Some(Filter::Keys(wire::Keys { keys: keys.to_vec() })),
            KeyFilter::Prefix(prefix) => Some(Filter::Prefix(prefix.clone())),
        },
        from: Some(match &subscribe.from {
            StartAt::Latest => From::Latest(wire::Latest {}),
            StartAt::Earliest => From::Earliest(wire::Earliest {}),
            StartAt::Timestamp(timestamp) => From::TimestampMs(timestamp.as_millis()),
            StartAt::Ago(ago) => From::AgoMs(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            StartAt::Place(place) => From::Place(wire::Place {
                topic_id: place.topic_id.to_string(),
                positions: write_positions(&place.positions),
                epochs: write_epochs(&place.epochs),
            }),
        }),
        on_gap: match subscribe.on_gap {
            OnGap::Continue => wire::OnGap::Continue.into(),
            OnGap::Stop => wire::OnGap::Stop.into(),
        },
        window: subscribe.window.map_or(0, |window| window.get()),
    }
}

pub(crate) fn write_positions(positions: &Positions) -> WirePositions {
    positions.iter().map(|(partition, offset)| (partition.as_u32(), offset.as_u64())).collect()
}

pub(crate) fn read_epochs(wire: WireEpochs) -> Result<Epochs, DecodeError> {
    let mut epochs = Epochs::new();
    for (partition, epoch) in wire {
        argument::add_epoch(&mut epochs, Some(partition), epoch.epoch.into(), epoch.to)?;
    }
    Ok(epochs)
}

pub(crate) fn write_epochs(epochs: &Epochs) -> WireEpochs {
    let to_wire =
        |Reached { epoch, to }: Reached| wire::Epoch { epoch: epoch.as_u32(), to: to.as_u64() };
    epochs.iter().map(|(partition, reached)| (partition.as_u32(), to_wire(*reached))).collect()
}
