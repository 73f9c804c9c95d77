// This device's camera and microphone to the run, by WebRTC. Browsers' echo cancellation, noise
// suppression and gain control are made to remove what the run listens for, so they are off.

const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const BITS_PER_S = { audio: 128_000, video: 4_000_000 };
const ICE_MS = 2000;
const REASONS = {
  NotAllowedError: "The browser was not allowed to use them; allow it in the address bar.",
  NotFoundError: "This device has no camera, or no microphone.",
  NotReadableError: "Another program uses them.",
};

const $ = (id) => document.getElementById(id);

export class Camera {
  constructor(send) {
    this.send = send;
    this.peer = null;
    this.stream = null;
    this.facing = "environment";
    this.audio = true;
    $("give").addEventListener("click", () => (this.peer ? this.end() : this.give()));
    $("turn").addEventListener("click", () => this.turn());
    document.addEventListener("visibilitychange", () => {
      if (!this.peer) return;
      this.send({ camera: document.hidden ? "hidden" : "visible" });
    });
    screen.orientation?.addEventListener("change", () => this.peer && this.sayLive("Rotated."));
  }

  wanted(camera) {
    $("giving").hidden = !camera;
    if (!camera) return;
    this.audio = camera.audio;
    if (!navigator.mediaDevices?.getUserMedia) this.say("This browser gives no camera here: it needs HTTPS.");
    else if (!window.RTCPeerConnection) this.say("This browser has no WebRTC; use another one.");
    $("give").disabled = !navigator.mediaDevices?.getUserMedia || !window.RTCPeerConnection;
  }

  async give() {
    $("give").disabled = true;
    try {
      this.stream = await this.open(this.audio);
      const peer = this.peer = new RTCPeerConnection({ iceServers: [] });
      for (const track of this.stream.getTracks()) {
        if (track.kind === "audio") track.contentHint = "music"; // not speech alone
        limit(peer.addTrack(track, this.stream), BITS_PER_S[track.kind]);
        this.watch(track);
      }
      peer.addEventListener("connectionstatechange", () => {
        if (peer !== this.peer) return;
        if (peer.connectionState === "connected") this.sayLive();
        else if (peer.connectionState === "failed") this.end("The connection is lost.");
      });
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      this.send({ camera: peer.localDescription.sdp });
      this.say("Connecting …");
    } catch (error) {
      this.end();
      this.say(REASONS[error.name] ?? `It cannot be given (${error.name}).`);
    }
    $("give").disabled = false;
    this.show();
  }

  watch(track) {
    track.addEventListener("ended", () => this.end("The camera or microphone was taken away."));
  }

  open(audio) {
    const video = { facingMode: this.facing, width: { ideal: 640 }, height: { ideal: 480 },
      frameRate: { ideal: 30 } };
    return navigator.mediaDevices.getUserMedia({ video, audio: audio && SOUND });
  }

  async accepted(sdp) {
    try {
      await this.peer?.setRemoteDescription({ type: "answer", sdp });
    } catch {
      this.end("The answer is not understood.");
    }
  }

  /** Go on with the other camera, over the same connection. */
  async turn() {
    this.facing = this.facing === "environment" ? "user" : "environment";
    const sender = this.peer?.getSenders().find(({ track }) => track?.kind === "video");
    if (!sender) return;
    sender.track.stop(); // phones open one camera at a time
    try {
      const stream = await this.open(false);
      const [track] = stream.getVideoTracks();
      this.stream.removeTrack(sender.track);
      this.stream.addTrack(track);
      this.watch(track);
      await sender.replaceTrack(track);
      this.sayLive(this.facing === "user" ? "The front camera." : "The back camera.");
    } catch (error) {
      this.end(REASONS[error.name] ?? "The other camera cannot be opened.");
    }
  }

  end(words = "") {
    if (this.peer) this.send({ camera: "end" });
    this.ended(words);
  }

  ended(words) {
    const was = this.peer || this.stream;
    this.peer?.close();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.peer = this.stream = null;
    if (was) this.say(words);
    this.show();
  }

  show() {
    $("give").textContent = this.peer ? "Stop giving them" : "Give camera and microphone";
    $("turn").disabled = !this.peer;
  }

  sayLive(more = "") {
    this.say(`This device is the camera. ${more}`.trim());
    this.show();
  }

  say(words) {
    $("given").textContent = words;
  }
}

/** Allow a sender so many bits a second: browsers' own choice for sound is a telephone's. */
function limit(sender, maxBitrate) {
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings ?? []) encoding.maxBitrate = maxBitrate;
  sender.setParameters(parameters).catch(() => {});
}

/** Resolve once all addresses are in the description, or after a while with those that are. */
function gathered(peer) {
  return new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") resolve();
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState === "complete") resolve();
    });
    setTimeout(resolve, ICE_MS);
  });
}
