//! The frames of one Read call, checked: a metadata frame for each fragment, then frames of its content.

use proto::protocol::{Fragment, Header, ReadRequest, ReadResponse, Status};
use proto::{Invalid, Validate};

use bytes::Bytes;

/// What a frame brings.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// Bytes at `offset`, where the last ones ended.
    Content { offset: i64, bytes: Bytes },
    /// The next content is further than expected: what lay between is gone.
    Jump { from: i64, to: i64 },
    /// Nothing to do.
    Nothing,
}

/// What the end of the stream means.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// The broker ended the stream, as it may at any time.
    Closed,
    /// Everything before the request's end offset was read.
    Complete,
    /// The broker answered with a status.
    Status(Status),
    /// The broker wants this fragment to be read from its store, from the current offset.
    Fragment(Box<Fragment>, String),
}

/// Follows the frames of a call.
pub(super) struct Frames {
    end_offset: i64,
    metadata_only: bool,
    /// Of the next byte; −1 until the broker says where the write head is.
    offset: i64,
    write_head: i64,
    /// The last metadata frame: its status, and its fragment if no content followed.
    status: Status,
    pending: Option<(Fragment, String)>,
    fragment: Option<Fragment>,
}

impl Frames {
    pub(super) fn new(request: &ReadRequest) -> Frames {
        Frames {
            end_offset: request.end_offset,
            metadata_only: request.metadata_only,
            offset: request.offset,
            write_head: 0,
            status: Status::Ok,
            pending: None,
            fragment: None,
        }
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }

    /// The journal's write head, as of the last metadata.
    pub(super) fn write_head(&self) -> i64 {
        self.write_head
    }

    /// The fragment which the last metadata described.
    pub(super) fn fragment(&self) -> Option<&Fragment> {
        self.fragment.as_ref()
    }

    /// Checks a frame, and takes it in.
    pub(super) fn on_frame(&mut self, frame: ReadResponse) -> Result<(Event, Option<Header>), Invalid> {
        frame.validate()?;
        if !frame.content.is_empty() {
            return Ok((self.on_content(frame.offset, frame.content)?, None));
        }
        self.status = frame.status();
        self.write_head = frame.write_head;
        self.pending = None;
        self.fragment.clone_from(&frame.fragment);
        if self.status != Status::Ok {
            // Where a broker says that nothing is available yet, it also says where the journal goes on.
            if self.status == Status::OffsetNotYetAvailable && self.offset == -1 {
                self.offset = frame.offset.max(-1);
            }
            return Ok((Event::Nothing, frame.header));
        }
        let Some(fragment) = frame.fragment else { return Ok((Event::Nothing, frame.header)) };
        if frame.offset < self.offset {
            let problem = format!("invalid Offset ({}; expected >= {})", frame.offset, self.offset);
            return Err(Invalid::new(problem));
        }
        if !frame.fragment_url.is_empty() {
            self.pending = Some((fragment, frame.fragment_url));
        }
        let from = std::mem::replace(&mut self.offset, frame.offset);
        // A read from the write head goes wherever that is.
        let is_jump = from != -1 && from != frame.offset;
        let event = if is_jump { Event::Jump { from, to: frame.offset } } else { Event::Nothing };
        Ok((event, frame.header))
    }

    fn on_content(&mut self, offset: i64, bytes: Bytes) -> Result<Event, Invalid> {
        if offset != self.offset {
            let problem = format!("invalid Offset of content ({offset}; expected {})", self.offset);
            return Err(Invalid::new(problem));
        }
        self.pending = None;
        self.advance(bytes.len() as i64)?;
        Ok(Event::Content { offset, bytes })
    }

    /// Moves past `len` bytes, which were read.
    pub(super) fn advance(&mut self, len: i64) -> Result<(), Invalid> {
        let end = self.offset.checked_add(len).ok_or_else(|| Invalid::new("Offset overflows"))?;
        if self.end_offset != 0 && end > self.end_offset {
            let problem = format!("content ends at {end}, past the requested EndOffset {}", self.end_offset);
            return Err(Invalid::new(problem));
        }
        self.offset = end;
        Ok(())
    }

    /// What it means that there are no more frames.
    pub(super) fn on_end(&mut self) -> End {
        if self.status != Status::Ok {
            return End::Status(self.status);
        }
        if self.end_offset != 0 && self.offset >= self.end_offset {
            return End::Complete;
        }
        match self.pending.take() {
            Some((fragment, url)) if !self.metadata_only => End::Fragment(Box::new(fragment), url),
            _ => End::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(offset: i64, end_offset: i64) -> ReadRequest {
        ReadRequest { journal: "a/journal".to_owned(), offset, end_offset, ..Default::default() }
    }

    fn metadata(offset: i64, end: i64, url: &str) -> ReadResponse {
        let fragment = Fragment {
            journal: "a/journal".to_owned(),
            end,
            compression_codec: proto::protocol::CompressionCodec::None as i32,
            ..Default::default()
        };
        let fragment_url = url.to_owned();
        ReadResponse { offset, write_head: end, fragment: Some(fragment), fragment_url, ..Default::default() }
    }

    fn content(offset: i64, bytes: &'static [u8]) -> ReadResponse {
        ReadResponse { offset, content: Bytes::from_static(bytes), ..Default::default() }
    }

    #[test]
    fn content_is_contiguous() {
        let mut frames = Frames::new(&request(5, 0));
        assert_eq!(frames.on_frame(metadata(5, 100, "")).unwrap().0, Event::Nothing);
        let event = frames.on_frame(content(5, b"abc")).unwrap().0;
        assert_eq!(event, Event::Content { offset: 5, bytes: Bytes::from_static(b"abc") });
        assert_eq!((frames.offset(), frames.write_head()), (8, 100));
        for offset in [7, 9] {
            let error = frames.on_frame(content(offset, b"x")).unwrap_err().to_string();
            assert_eq!(error, format!("invalid Offset of content ({offset}; expected 8)"));
        }
        assert!(frames.on_frame(metadata(7, 100, "")).is_err(), "metadata must not go back");
        assert_eq!(frames.on_end(), End::Closed);
    }

    #[test]
    fn a_jump_is_noticed_but_not_from_the_write_head() {
        let mut frames = Frames::new(&request(0, 0));
        assert_eq!(frames.on_frame(metadata(50, 100, "")).unwrap().0, Event::Jump { from: 0, to: 50 });
        let mut frames = Frames::new(&request(-1, 0));
        assert_eq!(frames.on_frame(metadata(50, 100, "")).unwrap().0, Event::Nothing);
        assert_eq!(frames.offset(), 50);
    }

    #[test]
    fn the_end_says_what_to_do_next() {
        let mut frames = Frames::new(&request(0, 3));
        frames.on_frame(metadata(0, 100, "")).unwrap();
        assert_eq!(frames.on_end(), End::Closed);
        frames.on_frame(content(0, b"abc")).unwrap();
        assert_eq!(frames.on_end(), End::Complete);
        assert!(frames.on_frame(content(3, b"d")).is_err(), "content past the end offset");

        let mut frames = Frames::new(&request(0, 0));
        frames.on_frame(metadata(0, 100, "file:///root/fragment")).unwrap();
        let End::Fragment(fragment, url) = frames.on_end() else { panic!("no fragment") };
        assert_eq!((fragment.end, url.as_str()), (100, "file:///root/fragment"));
        assert_eq!(frames.on_end(), End::Closed);
        frames.on_frame(metadata(0, 100, "file:///root/fragment")).unwrap();
        frames.on_frame(content(0, b"abc")).unwrap();
        assert_eq!(frames.on_end(), End::Closed, "the broker served the fragment itself");
    }

    #[test]
    fn a_status_stays_until_the_end_and_tells_the_write_head() {
        let mut frames = Frames::new(&request(-1, 0));
        let status = Status::OffsetNotYetAvailable as i32;
        frames.on_frame(ReadResponse { status, offset: 42, write_head: 42, ..Default::default() }).unwrap();
        assert_eq!((frames.offset(), frames.write_head()), (42, 42));
        assert_eq!(frames.on_end(), End::Status(Status::OffsetNotYetAvailable));
    }

    #[test]
    fn frames_which_break_the_protocol_are_refused() {
        let mut frames = Frames::new(&request(0, 0));
        let with_head = ReadResponse { write_head: 9, ..content(0, b"x") };
        assert!(frames.on_frame(with_head).is_err());
        assert!(frames.on_frame(metadata(100, 100, "")).is_err(), "offset past its fragment");
        assert!(frames.on_frame(ReadResponse { status: 99, ..Default::default() }).is_err());
    }

    fn any_frame() -> impl Strategy<Value = ReadResponse> {
        let offset = || prop_oneof![-2..20i64, Just(i64::MAX), Just(i64::MAX - 2)];
        (offset(), offset(), offset(), 0..8i32, any::<bool>(), 0..4usize).prop_map(
            |(offset, end, write_head, status, url, content)| ReadResponse {
                status: status / 4 * Status::OffsetNotYetAvailable as i32,
                fragment: (status % 2 == 0).then(|| metadata(offset, end, "").fragment.unwrap_or_default()),
                fragment_url: if url { "file:///x".to_owned() } else { String::new() },
                content: Bytes::from(vec![0; content]),
                ..ReadResponse { offset, write_head, ..Default::default() }
            },
        )
    }

    proptest! {
        #[test]
        fn no_frames_panic_and_offsets_never_go_back(
            offset in -1..10i64,
            frames in prop::collection::vec(any_frame(), 0..20),
        ) {
            let mut state = Frames::new(&request(offset, 0));
            for frame in frames {
                let before = state.offset();
                let _ = state.on_frame(frame);
                let _ = state.on_end();
                prop_assert!(state.offset() >= before);
            }
        }
    }
}
