//! From a request that actix answered with a 101 to a stream of our own.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix_codec::Encoder;
use actix_codec::Framed;
use actix_codec::FramedParts;
use actix_http::Request;
use actix_http::Response;
use actix_http::body::BodySize;
use actix_http::body::MessageBody;
use actix_http::h1::Codec;
use actix_http::h1::Message;
use actix_service::Service;
use actix_web::HttpMessage as _;
use actix_web::HttpResponse;
use actix_web::body::to_bytes_limited;
use actix_web::dev::ServiceResponse;
use actix_web::http::ConnectionType;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::server::link;
use crate::server::refusal::Refusal;
use crate::server::routes;
use crate::server::routes::Takeover;
use crate::server::settings::SocketSettings;
use crate::server::stream::ClientStream;
use crate::server::worker::Worker;
use crate::telemetry::arrivals::HandshakeFailed;
use crate::telemetry::traces::handshake::HandshakeSpan;

/// Serves one request that asks for an upgrade: lets the application answer it,
/// and where the answer says so, takes the stream from actix.
pub(in crate::server) async fn serve<S, B>(
    application: &S,
    worker: &Rc<Worker>,
    sockets: SocketSettings,
    request: Request,
    framed: Framed<ClientStream, Codec>,
) where
    S: Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody + 'static,
{
    worker.attend();
    let handshake = HandshakeSpan::start(|name| request.headers().get(name)?.to_str().ok());
    let answer = application.call(request).instrument(handshake.span().clone()).await;
    let (mut response, takeover) = match answer {
        Ok(answer) => {
            let mut response = answer.into_parts().1.map_into_boxed_body();
            let takeover = response.extensions_mut().remove::<Takeover>();
            (response, takeover)
        }
        Err(error) => (error.error_response(), None),
    };
    let parts = framed.into_parts();
    let result = match takeover {
        None => {
            handshake.answered(response.status().as_u16());
            respond(parts, response).await
        }
        Some(Takeover { mut opening, client }) => {
            opening.trace = handshake.origin();
            // The place is taken before the answer is written, so that nobody is
            // welcomed and then sent away.
            match worker.open(opening) {
                Err(reason) => {
                    response = routes::refuse(&Refusal::from(reason), client.address);
                    handshake.answered(response.status().as_u16());
                    respond(parts, response).await
                }
                Ok(key) => {
                    handshake.answered(response.status().as_u16());
                    let taken = take(parts, response, sockets).await;
                    taken.map_or_else(
                        |error| {
                            worker.close_unconnected(key);
                            Err(error)
                        },
                        |(stream, mut received)| {
                            let connect = || worker.connect(key, stream, client, &mut received);
                            if let Some(connection) = handshake.span().in_scope(connect) {
                                handshake.connected(connection);
                            }
                            Ok(())
                        },
                    )
                }
            }
        }
    };
    if let Err(error) = result {
        HandshakeFailed { error }.emit();
    }
}

/// Answers as actix would, and ends the connection.
async fn respond(
    mut parts: FramedParts<ClientStream, Codec>,
    response: HttpResponse,
) -> io::Result<()> {
    let (mut head, body) = response.into_parts();
    let body = to_bytes_limited(body, BODY_BYTES_MAX).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    head.head_mut().set_connection_type(ConnectionType::Close);
    let size = BodySize::Sized(body.len() as u64);
    let mut answer = encode(&mut parts.codec, head, size)?;
    answer.extend_from_slice(&body);
    write(&mut parts.io, &answer).await?;
    if let ClientStream::Tls(stream) = &mut parts.io {
        // TLS has a word of its own for the end. Who does not hear it is gone.
        let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
    }
    link::linger(parts.io.socket()).await;
    Ok(())
}

/// Writes the 101 and takes the stream, with what the client has sent already.
async fn take(
    mut parts: FramedParts<ClientStream, Codec>,
    response: HttpResponse,
    sockets: SocketSettings,
) -> io::Result<(ClientStream, BytesMut)> {
    let (head, _) = response.into_parts();
    let answer = encode(&mut parts.codec, head, BodySize::None)?;
    link::tune(parts.io.socket(), sockets)?;
    write(&mut parts.io, &answer).await?;
    Ok((parts.io, parts.read_buf))
}

fn encode(codec: &mut Codec, head: HttpResponse<()>, size: BodySize) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    codec.encode(
        Message::<(Response<()>, BodySize)>::Item((Response::from(head), size)),
        &mut bytes,
    )?;
    Ok(bytes)
}

/// Writes a head, which fits any socket that was just opened: a peer that does
/// not take it is not waited for.
async fn write(stream: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE_TIMEOUT, write).await?
}

/// Bytes of a refusal's body.
const BODY_BYTES_MAX: usize = 64 << 10;
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
