// The picture on the desk: decoded here for showing, uploaded once, then named by its id.

import { ServiceError, segment, uploadImage } from "./api.js";

export class Photo {
  #upload = null;

  constructor(blob, name, bitmap) {
    this.blob = blob;
    this.name = name;
    this.bitmap = bitmap;
    this.url = URL.createObjectURL(blob);
    // The upright size as this browser sees it; the service's own size replaces it.
    this.size = { width: bitmap.width, height: bitmap.height };
  }

  static async open(blob, name) {
    try {
      // Upright as the service sees it: coordinates are counted after EXIF orientation.
      const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
      return new Photo(blob, name, bitmap);
    } catch {
      throw new ServiceError({
        title: "This file cannot be opened",
        detail: `${name} is not a picture that this browser can read. PNG, JPEG and WebP work.`,
      });
    }
  }

  close() {
    URL.revokeObjectURL(this.url);
    this.bitmap.close();
  }

  /** The image id; uploads on the first call, and again after a failure. */
  id() {
    this.#upload ??= uploadImage(this.blob).then(
      ({ id, size }) => {
        if (size.width && size.height) this.size = size;
        return id;
      },
      (error) => {
        this.#upload = null;
        throw error;
      },
    );
    return this.#upload;
  }

  /** `call` with {"image_id": …}; when the service has forgotten the image, uploads it again and calls once more. */
  async named(call) {
    const upload = this.id();
    try {
      return await call({ image_id: await upload });
    } catch (error) {
      if (error.reason !== "NOT_FOUND" || error.field === "engine_id") throw error;
      // Two calls may find out together: only the first one drops the old upload.
      if (this.#upload === upload) this.#upload = null;
      return call({ image_id: await this.id() });
    }
  }

  segment(prompt, engineId, signal) {
    return this.named((image) =>
      segment({ image, prompt, mask_encoding: "MASK_ENCODING_PNG", ...(engineId && { engine_id: engineId }) }, signal),
    );
  }
}
