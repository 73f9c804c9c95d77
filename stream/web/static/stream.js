// The picture by WebRTC: one stream, whose frames say their RTP timestamp. That is the capture time
// of the picture plus an origin that the run tells, and so finds the picture's own map.

const HZ = 90_000, WRAP = 2 ** 32;
const BEGINS_MS = 4000; // else it is single pictures again
const KEPT = 64;

/** A capture time in RTP's units, of 32 bits; the run computes the same. */
export const stamp = (captureS) => Math.floor(captureS * HZ) % WRAP;

export class Stream {
  /**
   * `drawn(picture, map)` is called for each picture that has its map, `passed(sequence)` with the
   * newest map that none will be drawn with any more, `failed()` when no pictures come.
   */
  constructor(send, drawn, passed, failed) {
    this.send = send;
    this.drawn = drawn;
    this.passed = passed;
    this.failed = failed;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, autoplay: true });
    this.peer = null;
    this.origin = null;
    this.maps = new Map();
  }

  get isOn() {
    return this.peer !== null;
  }

  async begin() {
    if (!window.RTCPeerConnection || !this.video.requestVideoFrameCallback) return this.failed();
    const peer = this.peer = new RTCPeerConnection({ iceServers: [] });
    this.came = false;
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addEventListener("track", ({ track, receiver }) => {
      receiver.jitterBufferTarget = 0; // the newest, and no reserve
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {});
      this.wait(peer);
    });
    await peer.setLocalDescription(await peer.createOffer());
    await new Promise((resolve) => {
      peer.addEventListener("icegatheringstatechange", () =>
        peer.iceGatheringState === "complete" && resolve());
      setTimeout(resolve, 1000);
    });
    if (peer !== this.peer) return;
    this.send({ picture: peer.localDescription.sdp });
    setTimeout(() => {
      if (peer === this.peer && !this.came) this.end(true);
    }, BEGINS_MS);
  }

  async accepted(sdp) {
    if (!this.peer) return;
    if (sdp) await this.peer.setRemoteDescription({ type: "answer", sdp }).catch(() => this.end(true));
    else this.end(true);
  }

  end(failed = false) {
    if (!this.peer) return;
    this.peer.close();
    this.peer = this.origin = null;
    this.maps.clear();
    this.send({ picture: null });
    if (failed) this.failed();
  }

  keep(map) {
    this.maps.set(stamp(map.captureS), map);
    for (const key of this.maps.keys()) {
      if (this.maps.size <= KEPT) break;
      this.maps.delete(key);
    }
  }

  meet(at) {
    const map = this.maps.get(at);
    if (map) {
      this.came = true;
      this.drawn(this.video, map);
      return;
    }
    const older = [...this.maps].filter(([key]) => (at - key + WRAP) % WRAP < WRAP / 2);
    if (older.length) this.passed(older.at(-1)[1].sequence);
  }

  wait(peer) {
    this.video.requestVideoFrameCallback((_, { rtpTimestamp }) => {
      if (peer !== this.peer) return;
      if (this.origin !== null && rtpTimestamp !== undefined) {
        this.meet((rtpTimestamp - this.origin + WRAP) % WRAP);
      }
      this.wait(peer);
    });
  }
}
