// Explorers without a kernel: all states are drawn beforehand; a control chooses one of them.
for (const explorer of document.querySelectorAll(".explorer")) {
  const made = JSON.parse(explorer.querySelector("script").textContent);
  const figures = [...explorer.querySelectorAll("figure")];
  const chosen = [...made.states[made.start][0]];
  const controls = document.createElement("div");
  controls.className = "explorer-controls";
  explorer.prepend(controls);

  // What the i-th control offers may depend on those before it.
  const offered = (i) => {
    const fits = made.states.filter(([labels]) => labels.slice(0, i).every((label, k) => label === chosen[k]));
    return [...new Set(fits.map(([labels]) => labels[i]))];
  };

  const inputs = made.controls.map(({ name, slider }, i) => {
    const label = document.createElement("label");
    const input = document.createElement(slider ? "input" : "select");
    const reading = document.createElement("output");
    label.append(`${name} `, input);
    if (slider) {
      input.type = "range";
      input.min = 0;
      label.append(reading);
    }
    input.addEventListener("input", () => {
      chosen[i] = offered(i)[slider ? Number(input.value) : input.selectedIndex];
      show();
    });
    controls.append(label);
    return { input, reading, slider };
  });

  const show = () => {
    inputs.forEach(({ input, reading, slider }, i) => {
      const labels = offered(i);
      if (!labels.includes(chosen[i])) chosen[i] = labels[0];
      const at = labels.indexOf(chosen[i]);
      if (slider) {
        input.max = labels.length - 1;
        input.value = at;
        input.setAttribute("aria-valuetext", chosen[i]);
        reading.textContent = chosen[i];
      } else {
        input.replaceChildren(...labels.map((label) => new Option(label)));
        input.selectedIndex = at;
      }
      input.disabled = labels.length < 2;
    });
    const [, tiles, words] = made.states.find(([labels]) => labels.every((label, k) => label === chosen[k]));
    figures.forEach((figure, k) => {
      const [image, caption] = figure.children;
      caption.innerHTML = made.words[words[k]];
      image.src = made.tiles[tiles[k]];
      image.alt = caption.textContent;
    });
  };
  show();
  // Once somebody reaches for a control, fetch the rest: no picture is waited for.
  const fetchAll = () => made.tiles.forEach((address) => (new Image().src = address));
  controls.addEventListener("pointerenter", fetchAll, { once: true });
  controls.addEventListener("focusin", fetchAll, { once: true });
}
