//! What a host's streams begin with: nothing, TLS by the key that it was given, or TLS by the key
//! that authentication has generated.
//!
//! Which of the last two is asked of the association for each stream, as a generated key is there
//! only after the first one.

use block_io::BufferPool;

use super::stream::Stream;
use crate::host::{Controller, QueueIndex};
use crate::tls::{KeyError, Layer, Offer};

/// See the module.
pub(super) struct Security {
    pool: BufferPool,
    configured: Option<Offer>,
}

impl Security {
    /// Streams in clear, until there is a generated key. Sessions take their memory from `pool`.
    pub(super) fn new(pool: &BufferPool) -> Self {
        Self { pool: pool.clone(), configured: None }
    }

    /// Has every stream begin with a TLS handshake that offers these keys.
    pub(super) fn offer(&mut self, offer: Offer) {
        self.configured = Some(offer);
    }

    /// Puts TLS under a new stream of the association's, if it is to have it.
    ///
    /// # Errors
    /// When the TLS library fails.
    pub(super) fn secure(
        &self,
        stream: &mut Stream,
        controller: &mut Controller,
        queue: QueueIndex,
    ) -> Result<(), KeyError> {
        let options = controller.options();
        let generated = controller
            .generated_psk()
            .map(|psk| Offer::generated(psk, &options.host, &options.subsystem))
            .transpose()?;
        if let Some(offer) = &generated {
            stream.secure(Layer::client(offer, &self.pool)?);
            controller.stream_secured(queue);
        } else if let Some(offer) = &self.configured {
            stream.secure(Layer::client(offer, &self.pool)?);
        }
        Ok(())
    }
}
