//! Traces compressed by zstd, read as if they were not.
//!
//! Any number of frames, skippable ones among them (`pzstd` writes such), and their checksums.
//! Absent: other compressors, and dictionaries.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::TraceError;

/// First bytes of a frame, and of a skippable one but for its lowest four bits.
const FRAME: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;

/// Bytes decompressed at a time, at least.
const CHUNK: usize = 64 << 10;

/// The largest window that is believed, in bytes: what decompression takes of memory.
const WINDOW_MAX: u64 = 128 << 20;

/// What `source` holds, decompressed if need be.
pub(super) fn open<'source>(
    source: &'source mut dyn BufRead,
) -> std::result::Result<Box<dyn BufRead + 'source>, TraceError> {
    let head = source.fill_buf().map_err(|error| TraceError::reading(&error))?;
    let magic = head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    Ok(match magic {
        Some(magic) if magic == FRAME || magic & !15 == SKIPPABLE => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(WINDOW_MAX);
            Box::new(BufReader::with_capacity(
                CHUNK,
                Frames { source, decoder, is_in_frame: false },
            ))
        }
        _ => Box::new(source),
    })
}

/// Frames one after another.
struct Frames<'source> {
    source: &'source mut dyn BufRead,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl Frames<'_> {
    /// Goes to the next frame with content; false at the end.
    fn next_frame(&mut self) -> Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped =
                        std::io::copy(&mut (&mut self.source).take(length), &mut std::io::sink())?;
                    if skipped < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(zstd_error(&error)),
            }
        }
        Ok(false)
    }

    fn check(&self) -> Result<()> {
        let stored = self.decoder.get_checksum_from_data();
        if stored.is_none() || stored == self.decoder.get_calculated_checksum() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidData, "zstd: a frame's checksum is wrong"))
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if !self.is_in_frame {
                if buffer.is_empty() || !self.next_frame()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBytes(CHUNK))
                    .map_err(|error| zstd_error(&error))?;
            }
            let length = self.decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.check()?;
            self.is_in_frame = false;
        }
    }
}

fn zstd_error(error: &FrameDecoderError) -> Error {
    Error::new(ErrorKind::InvalidData, format!("zstd: {error}"))
}
