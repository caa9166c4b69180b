"""Images, tags and masks in: the VOC reader, the Creatures generator, transforms, palette PNGs."""
