// A click on a figure shows it as large as the window; another click, or Escape, goes back.
const shown = document.createElement("dialog");
shown.className = "enlarged";
shown.addEventListener("click", () => shown.close());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") shown.close();
});
document.body.append(shown);

for (const image of document.querySelectorAll(".cell_output img, .first-picture img, img.api-example, img[src*='/photographs/']")) {
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.title = "Enlarge";
  const enlarge = () => {
    const copy = image.cloneNode();
    copy.removeAttribute("tabindex");
    shown.replaceChildren(copy);
    shown.showModal();
  };
  image.addEventListener("click", enlarge);
  image.addEventListener("keydown", (event) => {
    if (event.key === "Enter") enlarge();
  });
}
