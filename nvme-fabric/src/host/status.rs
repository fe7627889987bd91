//! What an NVMe status means for a block device's request.

use block_io::IoError;

use crate::spec::status::Status;

/// The error of a request whose command ended with `status`, which is not success.
pub fn io_error(status: Status) -> IoError {
    const INVALID: [Status; 5] = [
        Status::INVALID_FIELD,
        Status::DATA_SGL_LENGTH_INVALID,
        Status::SGL_TYPE_INVALID,
        Status::SGL_OFFSET_INVALID,
        Status::INVALID_SGL_COUNT,
    ];
    const READ_ONLY: [Status; 2] = [Status::NAMESPACE_WRITE_PROTECTED, Status::ACCESS_DENIED];
    const LOST: [Status; 5] = [
        Status::ABORTED_QUEUE_DELETED,
        Status::INTERNAL_PATH_ERROR,
        Status::CONTROLLER_PATHING_ERROR,
        Status::HOST_PATHING_ERROR,
        Status::INVALID_NAMESPACE,
    ];
    let is_one_of = |list: &[Status]| list.iter().any(|one| status.is(*one));
    if is_one_of(&INVALID) {
        IoError::InvalidArgument
    } else if is_one_of(&READ_ONLY) {
        IoError::ReadOnly
    } else if is_one_of(&LOST) {
        IoError::ConnectionLost
    } else if status.is(Status::INVALID_OPCODE) {
        IoError::Unsupported
    } else if status.is(Status::LBA_OUT_OF_RANGE) {
        IoError::OutOfRange
    } else if status.is(Status::CAPACITY_EXCEEDED) {
        IoError::NoSpace
    } else if status.is(Status::ABORT_REQUESTED) || status.is(Status::ABORTED_BY_HOST) {
        IoError::Cancelled
    } else {
        IoError::Media
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_error_whatever_the_retry_bit() {
        for (status, error) in [
            (Status::INVALID_FIELD.do_not_retry(), IoError::InvalidArgument),
            (Status::LBA_OUT_OF_RANGE.do_not_retry(), IoError::OutOfRange),
            (Status::CAPACITY_EXCEEDED, IoError::NoSpace),
            (Status::NAMESPACE_WRITE_PROTECTED, IoError::ReadOnly),
            (Status::INVALID_OPCODE, IoError::Unsupported),
            (Status::UNRECOVERED_READ_ERROR, IoError::Media),
            (Status::TRANSIENT_TRANSPORT_ERROR, IoError::Media),
            (Status::CONTROLLER_PATHING_ERROR, IoError::ConnectionLost),
            (Status::ABORT_REQUESTED, IoError::Cancelled),
            (Status::from_field(0x7f << 1), IoError::Media),
        ] {
            assert_eq!(io_error(status), error, "{status}");
        }
    }
}
