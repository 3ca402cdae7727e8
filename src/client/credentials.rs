//! Where a client's token comes from.

use std::io;
use std::path::PathBuf;

use crate::protocol::frame::Token;

/// Where the token is found each time that a connection begins or a token runs
/// out.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The server wants none.
    Anonymous,
    /// One token; when it has run out, the client ends.
    Fixed(Token),
    /// A file that somebody else keeps fresh, such as a mounted secret.
    File(PathBuf),
}

impl Credentials {
    /// Returns the token as it is now.
    ///
    /// # Errors
    ///
    /// A file that can't be read.
    pub async fn token(&self) -> io::Result<Option<Token>> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await?;
                Ok(Some(Token::new(text.trim().to_owned())))
            }
        }
    }
}
