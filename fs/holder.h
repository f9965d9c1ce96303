/*
 * holder.h - opening a store that another daemon may be about to let go.
 *
 * The note in DIR/lock tells the state of the daemon that holds it: "mounted MAJOR:MINOR", the
 * device number of its mount, and "closing" from the moment that it answers no more requests.
 * Whoever unmounts and mounts again at once finds one of the two, and waits.
 */
#ifndef HL_FS_HOLDER_H
#define HL_FS_HOLDER_H

#include "fs.h"

/*
 * hl_store_open(), tried again for up to 30 s while the holder is on its way out. -EBUSY: it is
 * not, and err names its pid. -EINTR: a signal asked us to stop meanwhile.
 */
int holder_open_store(const char *dir, const struct hl_options *options, struct hl_store **store,
                      struct hl_error *err);

void holder_note_mounted(struct hl_store *store, dev_t device);
void holder_note_closing(struct hl_store *store);

#endif
